"""How much would a score differ had other rows been read? Groups of rows, left out in turn.

The jackknife (J. Tukey, Ann. Math. Stat. 29, 1958; B. Efron and R. Tibshirani, An Introduction to
the Bootstrap, chapter 11): with g estimates θ_i, each without one group, the standard error is
√((g-1)/g · Σ(θ_i - mean θ)²). Of a mean it is the usual standard error.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from loratlas.errors import TrialError

MOST_GROUPS = 8
"""Sums are kept for each group. The standard error of g groups is itself good to 1/√(2(g-1)): to
about a quarter with eight, to four tenths with four."""
MOST_BYTES = 4 * 2**30
"""What a method may keep of all sites together: 4 GiB. The sketches of the 224 sites of an 8B model
take 3.9 GiB at 64 ranks, and beside 15 GiB of weights in bf16 they leave a GPU of 24 GiB room for a
pass."""
_BYTES = 4  # of a number: sums are in fp32


def jackknife(left_out: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return standard errors from estimates that each leave a group out.

    Args:
        left_out: shape (groups, ...), at least two groups.

    Returns:
        shape (...).
    """
    num_groups = len(left_out)
    spread = np.square(left_out - left_out.mean(axis=0)).sum(axis=0)
    found: NDArray[np.float64] = np.sqrt((num_groups - 1) / num_groups * spread)
    return found


class Kept(NamedTuple):
    """How many numbers a method keeps of all sites.

    Attributes:
        once: whatever the number of groups of rows is.
        by_group: for each group of rows.
    """

    once: int
    by_group: int

    def num_bytes(self, num_groups: int) -> int:
        """Return what they take with so many groups."""
        return _BYTES * (self.once + num_groups * self.by_group)


def halves(num_rows: int) -> tuple[range, range]:
    """Return the numbers of the rows of both halves; of an odd number the first has one more."""
    middle = (num_rows + 1) // 2
    return range(middle), range(middle, num_rows)


def num_groups(num_rows: int, most: int = MOST_GROUPS) -> int:
    """Return how many groups rows make, an even number up to `most`."""
    return min(most, num_rows // 2 * 2)


def affordable_groups(kept: Kept, num_rows: int, most: int = MOST_GROUPS) -> int:
    """Return how many groups of rows can be kept within `MOST_BYTES`; 0 where not even two can."""
    counts = range(num_groups(num_rows, most), 0, -2)
    return next((count for count in counts if kept.num_bytes(count) <= MOST_BYTES), 0)


def groups_of(num_rows: int, most: int = MOST_GROUPS) -> NDArray[np.int64]:
    """Return the group of each row, shape (rows,): an even number of runs of about equal length.

    The first half of the groups is the first half of the rows.
    """
    return np.arange(num_rows) * num_groups(num_rows, most) // num_rows


def wide(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor in float64, on the CPU where its own device has no such numbers."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GroupSums:
    """Sums over the rows of each group, and what a mean gradient divides them by.

    Attributes:
        sums: float64, shape (groups, ...).
        num_scored: scored predictions of each group, float64, shape (groups,).
    """

    sums: torch.Tensor
    num_scored: torch.Tensor

    def mapped(self, linear: Callable[[torch.Tensor], torch.Tensor]) -> "GroupSums":
        """Return what a linear function makes of the sums."""
        return GroupSums(sums=linear(self.sums), num_scored=self.num_scored)

    def whole(self) -> torch.Tensor:
        """Return the mean of all rows, shape (...)."""
        return self.sums.sum(0) / self.num_scored.sum()

    def halves(self) -> torch.Tensor:
        """Return the means of each half of the rows, shape (2, ...)."""
        middle = len(self.sums) // 2
        first, second = slice(middle), slice(middle, None)
        return torch.stack(
            [self.sums[half].sum(0) / self.num_scored[half].sum() for half in (first, second)]
        )

    def left_out(self) -> torch.Tensor:
        """Return the means without each group in turn, shape (groups, ...)."""
        counts = (self.num_scored.sum() - self.num_scored).view(-1, *[1] * (self.sums.dim() - 1))
        return (self.sums.sum(0) - self.sums) / counts


class MeanGradient:
    """Sums up a linear function of the gradient of the training loss, by group of rows.

    Args:
        num_scored: scored predictions of each row, shape (rows,).
        shape: of what is summed up.
        device: where it is kept.
        groups: most groups of rows.
    """

    def __init__(
        self,
        num_scored: NDArray[np.int64],
        shape: Sequence[int],
        device: torch.device,
        groups: int = MOST_GROUPS,
    ) -> None:
        of_rows = groups_of(len(num_scored), groups)
        self._num_scored = torch.from_numpy(np.bincount(of_rows, weights=num_scored))
        self._group_of = torch.from_numpy(of_rows).to(device)
        self._sums = torch.zeros(len(self._num_scored), *shape, device=device)

    def add(self, rows: torch.Tensor, found: torch.Tensor) -> None:
        """Add what was found of each row's own sum of losses, shape (rows, *shape)."""
        self._sums.index_add_(0, self._group_of[rows], found)

    def groups(self) -> GroupSums:
        """Return the sums.

        Raises:
            TrialError: they are no numbers.
        """
        sums = wide(self._sums)
        if not bool(torch.isfinite(sums).all()):
            raise TrialError("the gradient of the loss is no number: nothing can be scored")
        return GroupSums(sums=sums, num_scored=self._num_scored.to(sums.device))
