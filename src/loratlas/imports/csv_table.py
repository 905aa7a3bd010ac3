"""What does a CSV table of results say: a line a trial, or a line a scored example?

Columns that are needed: ``placement``, ``seed``, ``learning_rate``, ``trainable_parameters``, and

- ``loss``, nats per scored token, for a line a trial (``tokens``, how many were scored, helps); or
- ``example``, ``nll`` (nats) and ``tokens``, for a line an example, which intervals rest on.

Columns that may be there: ``split`` (test or validation), ``correct`` (right predictions),
``status`` (done, diverged or failed), ``rule``, ``seconds_per_step``, ``tokens_per_second``,
``peak_memory_bytes``. Lines of the placement ``base`` are scores of the untuned model.
"""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from loratlas.anatomy.sites import digest_of
from loratlas.errors import DataError, did_you_mean
from loratlas.imports.base import unresolved
from loratlas.imports.cells import Cells, count, finite, index, positive
from loratlas.imports.imported import ENGINE, Imported
from loratlas.measure.scores import UNKNOWN, SplitScore
from loratlas.study.problems import visible
from loratlas.study.records import BASE, PlacementRecord, Status, TrialRecord
from loratlas.train.outcome import Probe

NEEDED = ("placement", "seed", "learning_rate", "trainable_parameters")
PER_TRIAL = ("loss",)
PER_EXAMPLE = ("example", "nll", "tokens")
OPTIONAL = ("split", "correct", "status", "rule", "seconds_per_step", "tokens_per_second",
            "peak_memory_bytes")  # fmt: skip
Split = Literal["test", "validation"]
_SPLITS = get_args(Split)
_STATUSES = get_args(Status)
_TrialKey = tuple[str, float, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Line:
    """One line of the table, read."""

    number: int
    placement: str
    seed: int
    learning_rate: float
    trainable_parameters: int
    split: str
    status: Status
    example: int
    nll: float | None
    tokens: int
    correct: int
    rule: str
    costs: Mapping[str, float | None]

    @property
    def trial(self) -> _TrialKey:
        """What tells trials apart."""
        return self.placement, self.learning_rate, self.seed


def read_table(file: Path) -> Imported:
    """Read a table.

    Raises:
        DataError: a column is missing, a value cannot be read, or trials scored different
            examples; names the line.
    """
    lines = list(_lines(file))
    base = [line for line in lines if line.placement == BASE]
    own = [line for line in lines if line.placement != BASE]
    if not own:
        raise DataError(f"{file}: holds no line of a placement")
    placements = _placements(file, own)
    trials: dict[_TrialKey, list[_Line]] = {}
    for line in own:
        trials.setdefault(line.trial, []).append(line)
    digests = {placement.name: placement.digest for placement in placements}
    records = [(_record(file, each, digests), _scores(file, each)) for each in trials.values()]
    scores = _scores(file, base)
    _require_same_rows(file, [scores, *(found for _, found in records if found)])
    return Imported(
        source="csv",
        placements=placements,
        trials=records,
        base=scores,
        probes=dict(_probes(own, digests)),
        notes=_notes(lines),
    )


def _lines(file: Path) -> Iterator[_Line]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            columns = list(reader.fieldnames or [])
            _require_columns(file, columns)
            for row in reader:
                yield _line(file, reader.line_num, row, "nll" in columns)
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: is not UTF-8; save it as UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{file}: cannot be read as CSV: {error}") from error


def _require_columns(file: Path, columns: Sequence[str]) -> None:
    twice = next((name for name in columns if columns.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{file}: the column {visible(twice)} stands twice")
    known = (*NEEDED, *PER_TRIAL, *PER_EXAMPLE, *OPTIONAL)
    missing = [name for name in NEEDED if name not in columns]
    whole = set(PER_EXAMPLE) <= set(columns)
    if missing or whole == ("loss" in columns):
        raise DataError(
            f"{file}: expected the columns {', '.join(NEEDED)} and either loss, or "
            f"{', '.join(PER_EXAMPLE)}; its columns are {visible(', '.join(columns)) or 'none'}"
        )
    for name in columns:
        if name not in known:
            raise DataError(
                f"{file}: the column {visible(name)} is not read{did_you_mean(name, known)}; "
                f"what may be there beside the needed ones: {', '.join(('tokens', *OPTIONAL))}"
            )


def _line(file: Path, number: int, row: Mapping[Any, Any], per_example: bool) -> _Line:
    """Read one line; of the untuned base only its scores are looked at."""
    read = Cells(file, number, row)
    placement, is_base = read.text("placement"), row.get("placement") == BASE
    status = read.one_of("status", _STATUSES, "done")
    whole = per_example and status == "done"
    tokens = read.number("tokens", count, None if whole else 1)
    nll = None
    if status == "done":
        nll = read.number("nll", finite) if per_example else read.number("loss", finite) * tokens
    return _Line(
        number=number,
        placement=placement,
        seed=0 if is_base else read.number("seed", index),
        learning_rate=0.0 if is_base else read.number("learning_rate", positive),
        trainable_parameters=0 if is_base else read.number("trainable_parameters", index),
        split=read.one_of("split", _SPLITS, "test"),
        status=status,
        example=read.number("example", index, None if whole else 0),
        nll=nll,
        tokens=tokens,
        correct=read.number("correct", index, UNKNOWN),
        rule=row.get("rule") or "",
        costs={
            key: read.number(key, positive, 0.0) or None
            for key in ("seconds_per_step", "tokens_per_second", "peak_memory_bytes")
        },
    )


def _placements(file: Path, lines: Sequence[_Line]) -> list[PlacementRecord]:
    found: dict[str, _Line] = {}
    for line in lines:
        first = found.setdefault(line.placement, line)
        if first.trainable_parameters != line.trainable_parameters:
            raise DataError(
                f"{file}:{line.number}: trainable_parameters: {line.trainable_parameters:,} for "
                f"{visible(line.placement)}, and {first.trainable_parameters:,} on line "
                f"{first.number}"
            )
    return [unresolved(name, each.rule, each.trainable_parameters) for name, each in found.items()]


def _record(file: Path, lines: Sequence[_Line], digests: Mapping[str, str]) -> TrialRecord:
    first = lines[0]
    other = next((line for line in lines if line.status != first.status), None)
    if other is not None:
        raise DataError(
            f"{file}:{other.number}: status: {other.status}, and {first.status} on line "
            f"{first.number}, of the same trial"
        )
    return TrialRecord(
        digest=digest_of({"imported": list(first.trial)}),
        placement_digest=digests[first.placement],
        learning_rate=first.learning_rate,
        seed=first.seed,
        status=first.status,
        error=None if first.status == "done" else f"{first.status}, says the table",
        engine=ENGINE,
    )


def _scores(file: Path, lines: Sequence[_Line]) -> dict[str, SplitScore]:
    by_split: dict[str, dict[int, _Line]] = {}
    for line in lines:
        if line.nll is None:
            continue
        rows = by_split.setdefault(line.split, {})
        if line.example in rows:
            raise DataError(
                f"{file}:{line.number}: the same trial, split and example stand on line "
                f"{rows[line.example].number}"
            )
        rows[line.example] = line
    return {
        split: _score([rows[each] for each in sorted(rows)]) for split, rows in by_split.items()
    }


def _score(lines: Sequence[_Line]) -> SplitScore:
    def column(of: Callable[[_Line], int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.array([of(line) for line in lines], dtype=np.int64)

    return SplitScore(
        row=column(lambda line: line.example),
        nll=np.array([line.nll for line in lines], dtype=np.float64),
        num_tokens=column(lambda line: line.tokens),
        num_bytes=np.zeros(len(lines), dtype=np.int64),
        num_correct=column(lambda line: line.correct),
    )


def _require_same_rows(file: Path, scores: Sequence[Mapping[str, SplitScore]]) -> None:
    """Refuse trials that did not score the same examples: their losses do not compare."""
    for split in _SPLITS:
        known = [found[split] for found in scores if split in found]
        for score in known[1:]:
            if not (
                np.array_equal(score.row, known[0].row)
                and np.array_equal(score.num_tokens, known[0].num_tokens)
            ):
                raise DataError(
                    f"{file}: trials scored different examples of the split {split}, or different "
                    "numbers of tokens; losses compare over the same ones only"
                )
    if any(found and "test" not in found for found in scores):
        raise DataError(
            f"{file}: a trial has no line of the split test, which results are read from"
        )


def _probes(lines: Sequence[_Line], digests: Mapping[str, str]) -> Iterator[tuple[str, Probe]]:
    for line in lines:
        seconds, rate = line.costs["seconds_per_step"], line.costs["tokens_per_second"]
        memory = line.costs["peak_memory_bytes"]
        if seconds is not None and rate is not None:
            yield (
                digests[line.placement],
                Probe(
                    seconds_per_step=seconds,
                    tokens_per_second=rate,
                    peak_memory_bytes=None if memory is None else int(memory),
                    num_steps=0,
                    engine=ENGINE,
                ),
            )


def _notes(lines: Sequence[_Line]) -> list[str]:
    notes = []
    if len({line.example for line in lines}) == 1:
        notes.append(
            "One loss a trial: differences have no interval, and nothing can be told from them; "
            "lines of examples (example, nll, tokens) would give one."
        )
    if not any(line.placement == BASE for line in lines):
        notes.append("No line of the placement base: gains over the untuned model are not known.")
    return notes
