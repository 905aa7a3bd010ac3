"""How do the rows of several trials become one batch of the model?

Flat: all rows one after another, no padding, each row's tokens counted from its own beginning.
Whole: rows filled up to the longest, as everybody collates them, for models that cannot read flat.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from loratlas.data.collate import Collator
from loratlas.data.rows import IGNORED, TokenizedRow
from loratlas.data.spec import Task


def read_ids(row: TokenizedRow) -> NDArray[np.int32]:
    """Return the tokens that the model reads of a row."""
    return row.ids if row.masked is None else row.masked


@dataclass(frozen=True, kw_only=True, slots=True)
class Targets:
    """What is predicted where.

    Attributes:
        place: index along the hidden states, rows and tokens flattened, shape (scored,).
        wanted: the token that is predicted there, shape (scored,).
        row: which row of the batch it belongs to, shape (scored,).
    """

    place: torch.Tensor
    wanted: torch.Tensor
    row: torch.Tensor


class Layout(Protocol):
    """A way to lay rows out."""

    @property
    def fills_up(self) -> bool:
        """Whether all rows of a batch get the length of the longest."""

    def inputs(self, rows: Sequence[TokenizedRow]) -> dict[str, Any]:
        """Return the arguments of the model's forward pass."""

    def units(self, row: TokenizedRow) -> int:
        """Return what a row takes of the axis that routing counts along."""

    def targets(self, rows: Sequence[TokenizedRow]) -> Targets:
        """Return what is predicted where, row after row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Flat:
    """Rows one after another.

    Attributes:
        task: causal or masked.
        device: where the tensors go.
        first_position: the number of a row's first position, such as 2 in RoBERTa.
    """

    task: Task
    device: torch.device
    first_position: int = 0

    @property
    def fills_up(self) -> bool:
        """False: there is no padding."""
        return False

    def inputs(self, rows: Sequence[TokenizedRow]) -> dict[str, Any]:
        """Return ids and positions of shape (1, tokens), and where rows begin."""
        ids = np.concatenate([read_ids(row) for row in rows])
        positions = np.concatenate([self._positions(read_ids(row)) for row in rows])
        return {
            "input_ids": self._tensor(ids)[None],
            "position_ids": self._tensor(positions)[None],
            "row_bounds": (0, *accumulate(len(row.ids) for row in rows)),
        }

    def _positions(self, ids: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return the position of each token of a row.

        A model that counts from behind the padding token's id does not count such tokens, which a
        masked row may hold in another's place.
        """
        if not self.first_position:
            return np.arange(len(ids))
        padding = self.first_position - 1
        counted = ids != padding
        positions: NDArray[np.int64] = np.cumsum(counted) * counted + padding
        return positions

    def units(self, row: TokenizedRow) -> int:
        """Return the tokens of a row."""
        return len(row.ids)

    def targets(self, rows: Sequence[TokenizedRow]) -> Targets:
        """Return what is predicted where; a causal model predicts from the token before."""
        shift = 1 if self.task == "causal" else 0
        places = [np.flatnonzero(row.scored) for row in rows]
        starts = [0, *accumulate(len(row.ids) for row in rows)]
        flat = [start + place - shift for start, place in zip(starts, places, strict=False)]
        wanted = [row.ids[place] for row, place in zip(rows, places, strict=True)]
        return Targets(
            place=self._tensor(np.concatenate(flat)),
            wanted=self._tensor(np.concatenate(wanted)),
            row=self._tensor(np.repeat(np.arange(len(rows)), [len(each) for each in places])),
        )

    def _tensor(self, array: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(array.astype(np.int64)).to(self.device)


@dataclass(frozen=True, kw_only=True, slots=True)
class Whole:
    """Rows filled up to the longest.

    Attributes:
        collator: makes the batch.
        device: where the tensors go.
    """

    collator: Collator
    device: torch.device

    @property
    def fills_up(self) -> bool:
        """True."""
        return True

    def inputs(self, rows: Sequence[TokenizedRow]) -> dict[str, Any]:
        """Return what the collator makes, labels left out."""
        batch = self.collator(rows)
        del batch["labels"]
        return {name: tensor.to(self.device) for name, tensor in batch.items()}

    def units(self, row: TokenizedRow) -> int:  # noqa: ARG002
        """Return 1: routing counts rows."""
        return 1

    def targets(self, rows: Sequence[TokenizedRow]) -> Targets:
        """Return what is predicted where; a causal model predicts from the token before."""
        labels = self.collator(rows)["labels"]
        if self.collator.task == "causal":
            # The last place predicts nothing.
            ends = torch.full((len(rows), 1), IGNORED)
            labels = torch.cat([labels[:, 1:], ends], dim=1)
        row, column = torch.nonzero(labels != IGNORED, as_tuple=True)
        return Targets(
            place=(row * labels.shape[1] + column).to(self.device),
            wanted=labels[row, column].to(self.device),
            row=row.to(self.device),
        )
