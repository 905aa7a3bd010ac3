"""Which trials a tracker already has: one line a trial, in the tracker's folder of the run."""

import json
from pathlib import Path

_FILE_NAME = "sent.jsonl"

Mark = tuple[str, str]
"""The run of a tracker, and the digest of what it was told: a trial with a new measure differs."""


def read_marks(folder: Path) -> set[Mark]:
    """Return what was sent; a line that was torn by a kill counts for nothing."""
    marks: set[Mark] = set()
    try:
        lines = (folder / _FILE_NAME).read_bytes().splitlines()
    except OSError:
        return marks
    for line in lines:
        try:
            mark = json.loads(line)
            marks.add((str(mark["run"]), str(mark["content"])))
        except (ValueError, KeyError, TypeError):
            continue
    return marks


def add_mark(folder: Path, mark: Mark) -> None:
    """Keep that a trial was sent."""
    line = json.dumps({"run": mark[0], "content": mark[1]})
    # The line break comes first: whatever a kill left on the last line stays by itself.
    with (folder / _FILE_NAME).open("a", encoding="utf-8") as file:
        file.write(f"\n{line}")
