"""How is a choice among options written for a solver of linear programs?

Items with the same options are one kind with a number of members, so that a solver does not try
their permutations. A variable counts the members of a kind that take one option instead of the
first; a row for each kind keeps their sum within its members.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from loratlas.allocate.problem import Choice, Item, Problem

# HiGHS ends a search when the best that is left lies within 1e-6 of what it has, and scipy does
# not pass another number. With utilities that add up to this much, that is 1e-10 of them.
_LARGEST = 1e4


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Program:
    """Maximise ``gains @ x`` over x >= 0 with ``rows @ x <= most``.

    Attributes:
        kinds: members of each kind, as indices of items.
        owner: kind of each variable, shape (variables,).
        option: option that each variable counts, shape (variables,).
        gains: what each adds to the utility, in units of `scale`, shape (variables,).
        rows: the limits, each divided by its entry in `divisors`, then the kinds: shape
            (limits + kinds, variables).
        most: shape (limits + kinds,).
        divisors: greatest common divisors of what variables take, shape (limits,).
        scale: utility of one unit of `gains`.
        base: utility of the first option of every item.
    """

    kinds: tuple[tuple[int, ...], ...]
    owner: NDArray[np.int64]
    option: NDArray[np.int64]
    gains: NDArray[np.float64]
    rows: sparse.csr_array
    most: NDArray[np.float64]
    divisors: NDArray[np.int64]
    scale: float
    base: float

    @property
    def num_members(self) -> NDArray[np.int64]:
        """Return the most that each variable can be, shape (variables,)."""
        return np.array([len(members) for members in self.kinds])[self.owner]

    def choice(self, counts: NDArray[np.int64], num_items: int) -> Choice:
        """Return the choice that values of the variables mean; members come in model order.

        Args:
            counts: shape (variables,).
            num_items: of the problem.
        """
        chosen = [0] * num_items
        for kind, members in enumerate(self.kinds):
            mine = self.owner == kind
            taken = np.repeat(self.option[mine], counts[mine])[::-1].tolist()
            for member, option in zip(members, taken, strict=False):
                chosen[member] = option
        return tuple(chosen)


def program_of(problem: Problem) -> Program | None:
    """Write a problem as a linear program; None where every item has one option only.

    Args:
        problem: without vain options, so that every option after the first adds something.
    """
    kinds = tuple(_kinds(problem.items))
    firsts = [problem.items[members[0]] for members in kinds]
    counts = [len(item.ranks) - 1 for item in firsts]
    if not any(counts):
        return None
    gains = np.concatenate([item.gains[1:] - item.gains[0] for item in firsts])
    takes = np.concatenate([item.takes[:, 1:] - item.takes[:, :1] for item in firsts], axis=1)
    owner = np.repeat(np.arange(len(kinds)), counts)
    divisors = np.maximum(np.gcd.reduce(takes, axis=1), 1)
    nothing = (0,) * len(problem.items)
    left = (problem.limits - problem.takes(nothing)) // divisors
    limits = sparse.csr_array(takes / divisors[:, None])
    members = (np.ones(len(owner)), (owner, np.arange(len(owner))))
    # The shape is given, since the last kinds may have no variable.
    belongs = sparse.csr_array(members, shape=(len(kinds), len(owner)))
    scale = float(gains.max()) * len(problem.items) / _LARGEST
    return Program(
        kinds=kinds,
        owner=owner,
        option=np.concatenate([np.arange(1, count + 1) for count in counts]),
        gains=gains / scale,
        rows=sparse.csr_array(sparse.vstack([limits, belongs])),
        most=np.concatenate([left, [len(members) for members in kinds]]).astype(np.float64),
        divisors=divisors,
        scale=scale,
        base=problem.utility(nothing),
    )


def _kinds(items: Sequence[Item]) -> list[tuple[int, ...]]:
    """Return the indices of items in groups whose options are equal."""
    kinds: dict[tuple[bytes, bytes], list[int]] = {}
    for number, item in enumerate(items):
        kinds.setdefault((item.gains.tobytes(), item.takes.tobytes()), []).append(number)
    return list(map(tuple, kinds.values()))
