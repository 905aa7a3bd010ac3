"""Did a command answer bad input: the right exit, one message, and nothing left over?"""

import fnmatch
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bad_input.case import Case

OURS = "loratlas: "
_BOX = re.compile("[│╭╮╰╯─]")

Listing = Mapping[str, str]
"""What a folder holds: for each path below it, what stands there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a command came to; `code` is None where it did not end in time."""

    code: int | None
    out: str
    err: str
    before: Listing
    after: Listing


def listing(folder: Path) -> dict[str, str]:
    """Return what a folder holds; links are not followed."""
    return {str(path.relative_to(folder)): _held(path) for path in sorted(folder.rglob("*"))}


def message(outcome: Outcome) -> str:
    """Return what the person is told, on one line."""
    told = outcome.err if outcome.code else outcome.out + outcome.err
    if OURS in outcome.err:
        told = outcome.err.partition(OURS)[2]
    elif "Usage: " in outcome.err:
        told = outcome.err.partition("─ Error ")[2]
    return " ".join(_BOX.sub(" ", told).split())


def faults(case: Case, outcome: Outcome) -> list[str]:
    """Return every way in which the outcome is not what the case asks for; none if it held."""
    if outcome.code is None:
        return [f"still running after {case.seconds:g} s"]
    found = []
    if outcome.code != case.code:
        found.append(f"exit {outcome.code} in place of {case.code}")
    found += _about_messages(case, outcome)
    wanted = ".*".join(re.escape(" ".join(part.split())) for part in case.says.split("..."))
    if not re.search(wanted, message(outcome)):
        found.append(f"does not say {case.says!r}")
    if "Traceback" in outcome.out + outcome.err:
        found.append("a traceback")
    return [*found, *_about_stdout(case, outcome.out), *_about_files(case, outcome)]


def _held(path: Path) -> str:
    if path.is_symlink():
        return f"link to {path.readlink()}"
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return "folder"


def _about_messages(case: Case, outcome: Outcome) -> list[str]:
    ours = sum(line.startswith(OURS) for line in outcome.err.splitlines())
    wanted = int(case.code != 0 and not case.usage)
    found = [f"{ours} messages in place of {wanted}"] if ours != wanted else []
    if case.usage and "Usage: loratlas" not in outcome.err:
        found.append("does not show the usage")
    if case.code and not outcome.err.endswith("\n"):
        found.append("the message does not end its line")
    odd = {letter for letter in outcome.err if not letter.isprintable() and letter != "\n"}
    return [*found, f"the terminal gets {sorted(odd)!r}"] if odd else found


def _about_stdout(case: Case, out: str) -> list[str]:
    if case.code:
        return ["something on stdout"] if out else []
    if "--json" in case.asked:
        try:
            json.loads(out, parse_constant=_refuse)
        except ValueError as error:
            return [f"stdout is no JSON: {error}"]
    return []


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _about_files(case: Case, outcome: Outcome) -> list[str]:
    before, after = outcome.before, outcome.after
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    left = sorted(
        path for path in changed if not any(fnmatch.fnmatch(path, glob) for glob in case.leaves)
    )
    return [f"changed or left over: {', '.join(left[:5])}"] if left else []
