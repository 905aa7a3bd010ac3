"""How does a text lose what must not be written down: keys, tokens, passwords?

Libraries put addresses with passwords and headers with tokens into their messages, and messages end
up at the terminal, in logs, in the store of a run, in reports and in trackers.
"""

import logging
import os
import re
from collections.abc import Mapping

from loratlas.printable import printable

HIDDEN = "***"
_SECRET_NAME = re.compile(
    r"(?:^|_)(?:[A-Z]*KEYS?|[A-Z]*TOKENS?|SECRETS?|[A-Z]*PASSW(?:OR)?D|PASSPHRASE|CREDENTIALS?"
    r"|AUTH|PAT)(?:_|$)",
    re.IGNORECASE,
)
_SHORTEST = 6
"""Shorter values of such variables (`true`, `1`) are no secrets, and stand in ordinary words."""
_PATTERNS = {
    r"(?<=://)[^/\s]+(?=@)": HIDDEN,  # user:password@host
    r"(?i)\b(bearer )\S+": rf"\1{HIDDEN}",
    r"(?i)\b(authorization: \w+ )\S+": rf"\1{HIDDEN}",
    # In an address under any name that ends so, elsewhere under these alone: `pad_token=` is none.
    r"(?i)((?:[?&]\w*|\b)(?:token|password|passwd|secret|api_?key)=)[^&\s]+": rf"\1{HIDDEN}",
    r"\bhf_[A-Za-z0-9]{8,}": HIDDEN,
    r"\bwandb_v\d_\w{8,}": HIDDEN,
    r"\b(?:gh[a-z]_|github_pat_)\w{16,}": HIDDEN,
}


def redacted(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return a text without the secrets that the environment holds or that look like one."""
    secrets = (value for name, value in environment.items() if _SECRET_NAME.search(name))
    # The longest first: a secret may hold another.
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, HIDDEN)
    for pattern, left in _PATTERNS.items():
        text = re.sub(pattern, left, text)
    return text


class RedactedFormatter(logging.Formatter):
    """Formats what is logged, tracebacks included: no secret in it, and nothing to be obeyed."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of a record."""
        return printable(redacted(super().format(record)), keep="\n\t")
