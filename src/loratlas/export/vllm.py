"""Which file makes vLLM serve an adapter?

Older versions of vLLM read one rank and one alpha, newer ones the patterns, too; the uniform form
is right for both.
"""

import json
import re

from loratlas.export.subject import Subject
from loratlas.export.targets import VLLM_RANKS
from loratlas.export.trainers import base_location

ADAPTER = "adapter"
"""Folder of the adapter beside the file."""


def serve_file(subject: Subject, rank: int) -> str:
    """Return the configuration of ``vllm serve --config``.

    Args:
        subject: what is served.
        rank: of the uniform adapter.
    """
    allowed = next(each for each in VLLM_RANKS if each >= rank)
    lines = [
        "# In this folder: vllm serve --config vllm.yaml",
        f"model: {json.dumps(base_location(subject))}",
        "enable-lora: true",
        f"max-lora-rank: {allowed}",
        "lora-modules:",
        f"  - {json.dumps(f'{served_name(subject)}={ADAPTER}')}",
    ]
    if subject.model.revision is not None:
        lines.insert(2, f"revision: {json.dumps(subject.model.revision)}")
    return "".join(f"{line}\n" for line in lines)


def served_name(subject: Subject) -> str:
    """Return the name that requests ask for: what stands before = in a list of modules."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", subject.name).strip("-.") or "adapter"
