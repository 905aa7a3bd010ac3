"""Which token rows does a study train on and is judged by, and what was left out on the way?

A data section goes through four steps: rows are read (`sources`), turned into text (`formats`),
divided (`splits`) and tokenised (`tokens`). What each of them drops or cuts is counted here and
said in plain sentences. Nothing in this file needs torch; `collate` makes the tensors.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from loratlas.data.classified import class_names, tokenize_classified
from loratlas.data.formats import Examples, read_examples
from loratlas.data.masked import Masking, masking_of, tokenize_masked
from loratlas.data.rows import Tokenized, TokenizedRow
from loratlas.data.seq2seq import tokenize_pairs
from loratlas.data.sources import SPLIT_NAMES, Source, SplitName, read_source
from loratlas.data.spec import DataSpec, Task
from loratlas.data.splits import DrawnSplit, draw_splits
from loratlas.data.tokens import special_tokens, tokenize
from loratlas.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["PreparedData", "TokenizedRow", "TokenizedSplit", "prepare"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizedSplit:
    """The rows of one split, in the order of the source, and what was left out."""

    rows: tuple[TokenizedRow, ...] = ()
    num_truncated: int = 0
    """Rows among `rows` that were cut at the longest length."""
    num_skipped: int = 0
    """Drawn rows that are not among `rows`, because no scored token is left in them."""
    num_unanswered: int = 0
    """Rows of the source with an empty answer, left out before the draw."""
    num_duplicates: int = 0
    """Repeated rows in what the split was drawn from; the report says whether they were dropped."""
    num_overlaps: int = 0
    """Rows dropped before the draw because they also stand in test or validation."""

    @property
    def num_scored(self) -> int:
        """Scored tokens of all rows."""
        return sum(row.num_scored for row in self.rows)

    @property
    def num_bytes(self) -> int:
        """UTF-8 bytes of the scored text of all rows."""
        return sum(row.num_bytes for row in self.rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedData:
    """The data of a study, ready for batches. Train is never empty; the others may be."""

    train: TokenizedSplit
    validation: TokenizedSplit
    test: TokenizedSplit
    report: tuple[str, ...]
    """Plain sentences on what was dropped, cut or skipped; empty when nothing was."""
    digest: str
    """SHA-256 over the ids and masks of every split."""
    task: Task = "causal"
    masking: Masking | None = None
    """How training rows are masked at each visit, for masked language models."""
    classes: tuple[str, ...] = ()
    """Names of the classes by their index, in classification."""


def prepare(
    spec: DataSpec,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    root: Path,
    task: Task = "causal",
) -> PreparedData:
    """Read, divide and tokenise the data of a study.

    The result depends on the arguments alone; no global random state is read or set.

    Args:
        spec: the data section of a study.
        tokenizer: the base model's.
        root: folder that relative paths start at, the one of the study file.
        task: what the base model predicts.

    Raises:
        DataError: the data cannot be found or read, are too few, or hold nothing to score.
        NotYetError: the tokenizer has no character offsets.
    """
    max_length = _max_length(spec, tokenizer)
    source = read_source(spec, root=root)
    usable = {
        split: read_examples(rows, data_format=spec.format, loss_on=spec.loss_on)
        for split, rows in source.splits.items()
    }
    drawn = draw_splits(usable, spec, names=source.names)
    masking = masking_of(tokenizer, spec.mask_share) if task == "masked" else None
    classes = _classes(drawn) if task == "classification" else ()
    tokenizing = _Tokenizing(spec, tokenizer, max_length, task, masking, classes)
    tokenized = {split: tokenizing.of(split, drawn[split]) for split in SPLIT_NAMES}
    for split, found in tokenized.items():
        _check_scored(split, found, max_length)
    splits = {split: _joined(drawn[split], tokenized[split]) for split in SPLIT_NAMES}
    report = (
        *_about_source(source, usable),
        *_about_tokenizer(spec, tokenizer, max_length),
        *_about_draw(drawn),
        *_about_tokens(tokenized, max_length),
    )
    for sentence in report:
        _log.info(sentence)
    return PreparedData(
        **splits,
        report=report,
        digest=_digest(splits, classes),
        task=task,
        masking=masking,
        classes=classes,
    )


class _Tokenizing(NamedTuple):
    """How the rows of a split become tokens, by what the model predicts."""

    spec: DataSpec
    tokenizer: "PreTrainedTokenizerBase"
    max_length: int
    task: Task
    masking: Masking | None
    classes: tuple[str, ...]

    def of(self, split: SplitName, drawn: DrawnSplit) -> Tokenized:
        examples, tokenizer, max_length = drawn.examples, self.tokenizer, self.max_length
        if self.task == "seq2seq":
            return tokenize_pairs(examples, tokenizer, max_length=max_length)
        if self.task == "classification":
            return tokenize_classified(examples, tokenizer, self.classes, max_length=max_length)
        if self.masking is None:
            return tokenize(examples, tokenizer, max_length=max_length)
        # Rows for training are masked when they are visited, the others once for all.
        drawn_from = [self.spec.split_seed, SPLIT_NAMES.index(split)]
        seed = None if split == "train" else drawn_from
        return tokenize_masked(examples, tokenizer, self.masking, max_length=max_length, seed=seed)


def _classes(drawn: Mapping[SplitName, DrawnSplit]) -> tuple[str, ...]:
    return class_names({split: found.examples for split, found in drawn.items()})


def _max_length(spec: DataSpec, tokenizer: "PreTrainedTokenizerBase") -> int:
    if spec.max_length < 2:
        raise DataError(
            f"data.max_length: {spec.max_length} leaves nothing to predict; at least 2 tokens"
        )
    return min(spec.max_length, int(tokenizer.model_max_length))


def _check_scored(split: SplitName, found: Tokenized, max_length: int) -> None:
    if found.num_skipped and not found.rows:
        raise DataError(
            f"data: {split} has zero supervised tokens: in each of its {found.num_skipped:,} rows "
            f"no scored token is left within the first {max_length} tokens"
        )


def _joined(drawn: DrawnSplit, tokenized: Tokenized) -> TokenizedSplit:
    return TokenizedSplit(
        rows=tokenized.rows,
        num_truncated=tokenized.num_truncated,
        num_skipped=tokenized.num_skipped,
        num_unanswered=drawn.num_unanswered,
        num_duplicates=drawn.num_duplicates,
        num_overlaps=drawn.num_overlaps,
    )


def _about_source(source: Source, usable: Mapping[SplitName, Examples]) -> Iterator[str]:
    if source.unused:
        yield f"{source.name}: splits not used: {', '.join(source.unused)}."
    for split, found in usable.items():
        if found.num_unanswered:
            yield (
                f"{source.names[split]}: {found.num_unanswered:,} of {found.num_rows:,} rows left "
                "out for an empty answer."
            )


def _about_tokenizer(
    spec: DataSpec, tokenizer: "PreTrainedTokenizerBase", max_length: int
) -> Iterator[str]:
    if max_length < spec.max_length:
        yield (
            f"max_length {spec.max_length} is above the tokenizer's own limit; rows are cut at "
            f"{max_length} tokens."
        )
    if spec.format not in ("messages", "classification") and not special_tokens(tokenizer).end:
        yield "The tokenizer has no end-of-text token: none is appended to the answers."


def _about_draw(drawn: Mapping[SplitName, DrawnSplit]) -> Iterator[str]:
    pools = {split.pool: split for split in drawn.values() if split.pool}
    for name, split in pools.items():
        if split.num_overlaps:
            yield (
                f"{name}: rows dropped because the source's own test or validation split holds "
                f"them: {split.num_overlaps:,}."
            )
        if split.num_duplicates:
            done = "dropped before the draw" if split.duplicates_dropped else "kept"
            yield f"{name}: rows that repeat an earlier one: {split.num_duplicates:,}, {done}."


def _about_tokens(tokenized: Mapping[SplitName, Tokenized], max_length: int) -> Iterator[str]:
    for name, found in tokenized.items():
        total = len(found.rows) + found.num_skipped
        if found.num_truncated:
            yield f"{name}: {found.num_truncated:,} of {total:,} rows cut at {max_length} tokens."
        if found.num_skipped:
            yield (
                f"{name}: {found.num_skipped:,} of {total:,} rows skipped: no scored token within "
                f"the first {max_length} tokens."
            )


def _digest(splits: Mapping[SplitName, TokenizedSplit], classes: tuple[str, ...]) -> str:
    """Hash ids and masks; lengths go in too, so that no two data sets share a byte stream."""
    digest = hashlib.sha256()
    for name, split in splits.items():
        digest.update(f"{name} {len(split.rows)}\n".encode())
        for row in split.rows:
            digest.update(f"{len(row.ids)}\n".encode())
            digest.update(row.ids.astype("<i4").tobytes())
            digest.update(row.scored.astype(np.uint8).tobytes())
            for part, ids in (("source", row.source), ("masked", row.masked)):
                if ids is not None:
                    digest.update(f"{part} {len(ids)}\n".encode() + ids.astype("<i4").tobytes())
            if row.label is not None:
                digest.update(f"label {classes[row.label]}\n".encode())
    return digest.hexdigest()
