"""Which rows does an audit score: those of a run, or those that a person names?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loratlas.data.batches import PreparedData, prepare
from loratlas.data.formats import read_examples
from loratlas.data.rows import TokenizedRow
from loratlas.data.sources import SPLIT_NAMES, Source, read_source
from loratlas.data.spec import DATA_FORMATS, DataFormat, DataSpec, LossOn
from loratlas.data.tokens import tokenize
from loratlas.errors import DataError, RequestError, RunFolderError, did_you_mean
from loratlas.measure.audit.rows import AuditRows, Marks, audit_rows
from loratlas.train.base import Base, max_positions

# The keys by which the rows of a format are known, the most telling first.
_KEYS: dict[str, DataFormat] = {
    "instruction": "alpaca",
    "completion": "prompt_completion",
    "messages": "messages",
    "question": "gsm8k",
    "text": "text",
}


def rows_of_run(
    study: dict[str, Any], base: Base, roots: Sequence[Path], *, split: str, digest: str | None
) -> AuditRows:
    """Return the rows of a split of a run, the same that its trials were scored on.

    Args:
        study: the study as the run keeps it.
        base: its base.
        roots: folders that relative paths may start at, the likeliest first.
        split: train, validation or test.
        digest: of the run's rows; None checks nothing.

    Raises:
        RequestError: the data cannot be found, are no longer those of the run, or lack the split.
    """
    if split not in SPLIT_NAMES:
        raise RequestError(
            f"{split}: no such split{did_you_mean(split, SPLIT_NAMES)}; "
            f"there is: {', '.join(SPLIT_NAMES)}"
        )
    spec = DataSpec(**study["data"])
    root = _root(spec, roots)
    data = prepare(spec, base.tokenizer, root=root)
    if digest is not None and data.digest != digest:
        raise RunFolderError(
            "the rows are no longer those that the run was made with: data or tokenizer have "
            "changed; give the study file with --study if its data lie elsewhere"
        )
    rows = _split(data, split)
    if not rows:
        raise RequestError(f"the run has no {split} rows")
    answers = None
    if spec.loss_on == "everything" and spec.format != "text":
        other = prepare(replace(spec, loss_on="response"), base.tokenizer, root=root)
        answers = _answers(rows, _split(other, split))
    elif spec.loss_on != "everything":
        answers = tuple(row.scored for row in rows)
    return audit_rows(rows, base.tokenizer, pad_id=base.pad_id, answers=answers)


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedRows:
    """Rows that a person names: a file or a bundled task, and how it is read.

    Attributes:
        data: one local file, a hub name, or a bundled task (``demo:facts``).
        format: how a row is read; None looks at the keys of the first one.
        loss_on: what is scored; None is everything in format text, else the response.
        num_rows: the first so many rows; None takes all.
        max_length: tokens of a row; None takes as many as the model has positions.
        split: of a source that has several.
    """

    data: str
    format: str | None = None
    loss_on: str | None = None
    num_rows: int | None = None
    max_length: int | None = None
    split: str = "test"


def named_rows(named: NamedRows, base: Base, *, root: Path) -> AuditRows:
    """Return the rows that a person names.

    Raises:
        RequestError: they cannot be read, or nothing in them is scored.
    """
    source = read_source(DataSpec(source=named.data, format="text"), root=root)
    rows = list(_named_split(source, named.split))[: named.num_rows]
    data_format = named.format or _format(source, rows[0].values)
    loss_on: Any = named.loss_on or ("everything" if data_format == "text" else "response")
    max_length = _max_length(named.max_length, base)

    def read(scored: LossOn) -> tuple[TokenizedRow, ...]:
        found = read_examples(rows, data_format=_checked(data_format), loss_on=scored)
        return tokenize(found.examples, base.tokenizer, max_length=max_length).rows

    scored = read(loss_on)
    if not scored:
        raise DataError(f"{source.name}: nothing to score in its first {len(rows):,} rows")
    answers: Marks | None = None
    if data_format != "text":
        answers = _answers(scored, read("response"))
    return audit_rows(scored, base.tokenizer, pad_id=base.pad_id, answers=answers)


def _root(spec: DataSpec, roots: Sequence[Path]) -> Path:
    """Return the folder from which the data are found; the digest says whether they are right."""
    named = [spec.source] if spec.source is not None else list(spec.files.values())
    for root in roots:
        if all((root / name).is_file() for name in named):
            return root
    return roots[0]


def _split(data: PreparedData, split: str) -> tuple[TokenizedRow, ...]:
    return {"train": data.train, "validation": data.validation, "test": data.test}[split].rows


def _answers(rows: Sequence[TokenizedRow], other: Sequence[TokenizedRow]) -> Marks | None:
    """Return the marks of other rows where they are the same rows with the answer scored alone."""
    marks = {row.row: row for row in other}
    found = list(_matched(rows, marks))
    return tuple(found) if len(found) == len(rows) else None


def _matched(rows: Sequence[TokenizedRow], others: dict[int, TokenizedRow]) -> Iterator[Any]:
    for row in rows:
        other = others.get(row.row)
        if other is not None and len(other.ids) == len(row.ids) and (other.ids == row.ids).all():
            yield other.scored
        elif other is None:
            yield row.scored & False  # cut before its answer begins


def _named_split(source: Source, split: str) -> Sequence[Any]:
    if split not in SPLIT_NAMES:
        raise RequestError(
            f"--split {split}: no such split{did_you_mean(split, SPLIT_NAMES)}; "
            f"there is: {', '.join(SPLIT_NAMES)}"
        )
    found = {str(name): rows for name, rows in source.splits.items()}
    return found.get(split, found["train"])


def _format(source: Source, values: Any) -> str:
    for key, data_format in _KEYS.items():
        if key in values:
            return data_format
    raise DataError(
        f"{source.name}: its rows hold {', '.join(map(str, values))}, which tells no format; give "
        f"--format, one of {', '.join(DATA_FORMATS)}"
    )


def _checked(data_format: str) -> DataFormat:
    for known in _KEYS.values():
        if data_format == known:
            return known
    raise RequestError(
        f"--format {data_format}: no format that holds text to score"
        f"{did_you_mean(data_format, _KEYS.values())}; there is: {', '.join(_KEYS.values())}"
    )


def _max_length(asked: int | None, base: Base) -> int:
    if asked is not None and asked < 2:
        raise RequestError(f"--max-length {asked}: at least 2 tokens, one predicts the other")
    limits = [int(base.tokenizer.model_max_length), max_positions(base.model), asked]
    return min(limit for limit in limits if limit is not None)
