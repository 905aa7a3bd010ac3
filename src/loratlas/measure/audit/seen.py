"""One model before some rows: every pass that an audit may need, each made once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from loratlas.data.collate import Collator
from loratlas.data.rows import TokenizedRow
from loratlas.measure.audit.rows import AuditRows, Marks
from loratlas.measure.audit.tables import (
    Nats,
    RowTable,
    evaluating,
    has_dropout,
    read_tables,
    training,
)
from loratlas.measure.audit.tallies import Tally
from loratlas.measure.likelihood import score
from loratlas.measure.scores import SplitScore
from loratlas.train.base import max_positions


class NotHere(Exception):  # noqa: N818 (an answer, not an error)
    """A variant does not apply to this model and these rows; its text says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """How an audit batches.

    Attributes:
        batch: rows of a batch, where a figure depends on it.
        accumulation: micro-batches of an optimiser step, for the accumulated means.
        window: longest stretch that the strided windows read; None: they do not apply.
        seed: of the dropout masks.
    """

    batch: int = 8
    accumulation: int = 4
    window: int | None = None
    seed: int = 0


class Seen:
    """A model and rows, with what the passes over them gave."""

    def __init__(
        self, model: Any, rows: AuditRows, setting: Setting, *, device: torch.device
    ) -> None:
        self.rows = rows
        self.setting = setting
        self._model = model
        self._device = device

    @cached_property
    def tables(self) -> tuple[RowTable, ...]:
        """The one pass that most variants are read from, dropout off."""
        with evaluating(self._model):
            return self._read()

    @cached_property
    def tables_with_dropout(self) -> tuple[RowTable, ...]:
        """The same pass with dropout on.

        Raises:
            NotHere: nothing in the model drops anything.
        """
        if not has_dropout(self._model):
            raise NotHere("no dropout here")
        with training(self._model, self._device, seed=self.setting.seed):
            return self._read()

    @property
    def max_length(self) -> int | None:
        """Tokens that the model's learned positions reach, None without a limit."""
        return max_positions(self._model)

    def _read(self) -> tuple[RowTable, ...]:
        return read_tables(
            self._model,
            self.rows.rows,
            pad_id=self.rows.pad_id,
            device=self._device,
            batch=self.setting.batch,
        )

    def rescore(self, rows: Sequence[TokenizedRow]) -> SplitScore:
        """Score other rows, by the scorer of the studies."""
        collator = Collator(pad_id=self.rows.pad_id)
        return score(self._model, rows, collator=collator, device=self._device)

    def tally(
        self,
        marks: Marks,
        of: Callable[[RowTable], Nats] = lambda table: table.shifted,
        *,
        tables: Sequence[RowTable] | None = None,
    ) -> Tally:
        """Sum one column of the tables over the marked tokens of each row."""
        read = self.tables if tables is None else tables
        return Tally(
            nll=np.array([of(table)[mark].sum() for table, mark in zip(read, marks, strict=True)]),
            count=np.array([mark.sum() for mark in marks], dtype=np.int64),
        )

    @cached_property
    def windows(self) -> tuple[Tally, NDArray[np.int64]]:
        """What the strided windows score, and how many tokens each of them advances.

        A row that fits into the window is one window. The stride is half the window; each
        window scores what the ones before it have not.

        Raises:
            NotHere: no row is longer than the window.
        """
        pieces = [piece for row in self.rows.rows for piece in _windows(row, self._window())]
        found = self.rescore([piece for piece, _ in pieces])
        advanced = np.array([tokens for _, tokens in pieces], dtype=np.int64)
        some = found.num_tokens > 0
        return Tally(nll=found.nll[some], count=found.num_tokens[some]), advanced[some]

    def _window(self) -> int:
        window, longest = self.setting.window, max(len(row.ids) for row in self.rows.rows)
        if window is None:
            raise NotHere("no window is set, and the model's positions have no limit")
        if longest <= window:
            raise NotHere(f"no row is longer than the window: {longest} tokens of {window}")
        return window


def _windows(row: TokenizedRow, window: int) -> list[tuple[TokenizedRow, int]]:
    """Return the windows of a row, each with how many tokens it adds to those before."""
    pieces = []
    done = 0
    for begin in range(0, len(row.ids), max(1, window // 2)):
        end = min(begin + window, len(row.ids))
        fresh = np.arange(begin, end) >= max(done, 1)
        fresh &= np.arange(begin, end) > begin  # the first of a window has nothing before it
        piece = replace(row, ids=row.ids[begin:end], scored=row.scored[begin:end] & fresh)
        pieces.append((piece, _advanced(row, done, end)))
        done = end
        if end == len(row.ids):
            break
    return pieces


def _advanced(row: TokenizedRow, done: int, end: int) -> int:
    """Return the labels that a window adds, counted before any shift.

    Where every token but the first is scored, the first has a label, too.
    """
    labels = int(row.scored[done:end].sum())
    return labels + int(done == 0 and bool(row.scored[1:].all()))
