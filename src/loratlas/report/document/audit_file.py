"""Is there an audit beside the run, and is it one of this study?

``audit.json`` is what ``loratlas audit RUN --json`` prints. It is a file that a person puts there,
so it is looked at before anything is drawn from it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_OF_VARIANT = ("name", "applies", "reason", "ratio", "per_placement", "ranking", "agrees",
               "contradicts", "base")  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditFile:
    """What was found.

    Attributes:
        audit: keys as the ``audit`` command documents them; None where there is none to use.
        why_not: why not, as a sentence; empty where there is one, or no file at all.
    """

    audit: Mapping[str, Any] | None = None
    why_not: str = ""


def read_audit(path: Path, study: str | None) -> AuditFile:
    """Read the audit of a study, as far as there is one.

    Args:
        path: the file, which may be missing.
        study: name of the study that it has to be of.
    """
    if not path.is_file():
        return AuditFile()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        return AuditFile(why_not=f"{path.name} cannot be read: {error}.")
    if not _is_audit(found):
        return AuditFile(why_not=f"{path.name} is not what loratlas audit --json prints.")
    if found["study"] != study:
        return AuditFile(why_not=f"{path.name} is of the study {found['study']}, not of {study}.")
    return AuditFile(audit=found)


def _is_audit(found: Any) -> bool:
    return (
        isinstance(found, dict)
        and {"study", "variants", "num_rows", "num_tokens", "split"} <= found.keys()
        and isinstance(found["variants"], list)
        and all(
            isinstance(each, dict) and set(_OF_VARIANT) <= each.keys() for each in found["variants"]
        )
    )
