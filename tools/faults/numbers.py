"""Which numbers does a run hold, and do two runs hold the same?

Read from the file of the store itself, not by loratlas: what is compared is what is stored.
"""

import hashlib
import json
import math
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

MAY_DIFFER = frozenset({"attempts", "seconds", "memory", "peak_memory_bytes"})
"""Keys, wherever they stand, of what an attempt took and not of what came out of it."""

_BOOKKEEPING = frozenset({"claims", "root", "tracking_run"})
"""Keys of a run's own books: who works on what, and where the study file lies."""

_OF_MEMORY = frozenset({"micro_batch", "halved", "tokens_per_pass"})
"""What a run notes where memory was too small: then sums are taken in another order."""

Numbers = Mapping[str, str]
"""Every stored value as text that gives it back exactly, by where it stands."""


def numbers(run: Path) -> dict[str, str]:
    """Return every number of a run folder, adapters by their SHA-256."""
    with closing(sqlite3.connect(f"file:{run / 'run.sqlite'}?mode=ro", uri=True)) as store:
        found = dict(_flat(dict(_stored(store))))
    for path in sorted((run / "adapters").rglob("*")):
        if path.is_file():
            found[str(path.relative_to(run))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def records(run: Path) -> list[dict[str, Any]]:
    """Return the record of every trial."""
    with closing(sqlite3.connect(f"file:{run / 'run.sqlite'}?mode=ro", uri=True)) as store:
        return [json.loads(text) for (text,) in _rows(store, "content", "trials")]


def has_begun(run: Path) -> bool:
    """Return whether a trial was begun in a run that goes on."""
    if not (run / "run.sqlite").is_file():
        return False
    with closing(sqlite3.connect(run / "run.sqlite")) as store:
        return bool(_rows(store, "value", "meta WHERE key = 'claims'"))


def differences(wanted: Numbers, found: Numbers, tolerance: float = 0.0) -> list[str]:
    """Return in words where two runs differ.

    Args:
        wanted: of the run that nobody disturbed.
        found: of the other.
        tolerance: relative, of losses, where sums were taken in another order; adapters are then
            not compared.
    """
    told = []
    for place in sorted(wanted.keys() | found.keys()):
        ours, theirs = wanted.get(place, "nothing"), found.get(place, "nothing")
        if ours != theirs and not (tolerance and _near(place, ours, theirs, tolerance)):
            told.append(f"{place} is {theirs}, undisturbed {ours}")
    return told


def _near(place: str, ours: str, theirs: str, tolerance: float) -> bool:
    if place.startswith("adapters/") or place.rpartition("/")[2] in _OF_MEMORY:
        return True
    try:
        return math.isclose(float(ours), float(theirs), rel_tol=tolerance)
    except ValueError:
        return False


def _stored(store: sqlite3.Connection) -> Iterator[tuple[str, Any]]:
    for key, value in _rows(store, "key, value", "meta"):
        if key not in _BOOKKEEPING:
            yield f"meta {key}", json.loads(value)["value"]
    for name, position, digest, content in _rows(
        store, "name, position, digest, content", "placements"
    ):
        yield f"placement {name}", [position, digest, json.loads(content)]
    for digest, status, spec, content in _rows(store, "digest, status, spec, content", "trials"):
        yield f"trial {digest}", [status, json.loads(spec), json.loads(content)]
    for number, trial, split in _rows(store, "id, trial, split", "scores"):
        columns = "row, nll, num_tokens, num_bytes, num_correct, label, predicted"
        rows = _rows(store, columns, f"examples WHERE score = {number} ORDER BY row")
        yield f"scores {trial} {split}", [list(row) for row in rows]
    for trial, measure, digest, content in _rows(
        store, "trial, measure, digest, content", "measurements"
    ):
        yield f"measure {trial} {measure}", [digest, json.loads(content)]


def _rows(store: sqlite3.Connection, columns: str, table: str) -> list[tuple[Any, ...]]:
    return store.execute(f"SELECT {columns} FROM {table}").fetchall()


def _flat(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Yield the leaves of plain data with where they stand."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in MAY_DIFFER:
                yield from _flat(inner, f"{place}/{key}" if place else str(key))
    elif isinstance(value, list):
        yield f"{place}/len", str(len(value))
        for index, inner in enumerate(value):
            yield from _flat(inner, f"{place}/{index}")
    else:
        yield place, repr(value)
