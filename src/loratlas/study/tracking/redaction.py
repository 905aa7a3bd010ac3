"""How a message loses what must not be written down: keys, tokens, passwords."""

import os
import re
from collections.abc import Mapping

HIDDEN = "***"
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|AUTH", re.IGNORECASE)
_SHORTEST = 6
"""Shorter values of such variables (`true`, `1`) are no secrets, and stand in ordinary words."""
_PATTERNS = (
    re.compile(r"(?<=://)[^/\s@]+(?=@)"),  # user:password@host
    re.compile(r"(?i)(?<=bearer )\S+"),
    re.compile(r"(?i)(?<=token=)[^&\s]+"),
    re.compile(r"\bhf_[A-Za-z0-9]{8,}"),
    re.compile(r"\b(?:local-|wandb_v\d_)?[0-9a-f]{40}\b"),  # a key of Weights & Biases
)


def redacted(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return a text without the secrets that the environment holds or that look like one."""
    secrets = (value for name, value in environment.items() if _SECRET_NAME.search(name))
    # The longest first: a secret may hold another.
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, HIDDEN)
    for pattern in _PATTERNS:
        text = pattern.sub(HIDDEN, text)
    return text
