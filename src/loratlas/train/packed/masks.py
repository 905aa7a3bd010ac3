"""Which inputs of an adapter does dropout keep in an optimiser step?

Every trial draws for itself, from its seed, the step and the site, so that on a CPU neither the
trials beside it nor the number of passes changes a mask. In a flat batch one generator goes on
from pass to pass. Rows that are filled up have a length that depends on the others: there each row
draws by itself, token after token, and filling up only adds draws at the end.
"""

from collections import Counter

import torch

from loratlas.train.packed.slots import Slot


class Masks:
    """The masks of one optimiser step.

    Args:
        step: the optimiser step.
        by_row: whether each row draws by itself.
    """

    def __init__(self, step: int, *, by_row: bool) -> None:
        self._step = step
        self._by_row = by_row
        self._generators: dict[tuple[int, str], torch.Generator] = {}
        self._num_rows: Counter[tuple[int, str]] = Counter()

    def keep(
        self, slot: Slot, number: int, path: str, *, units: int, shape: tuple[int, int]
    ) -> torch.Tensor:
        """Return what is kept of the next inputs of a site.

        Args:
            slot: whose adapter.
            number: of the slot.
            path: of the site.
            units: tokens of a flat batch, else rows.
            shape: inputs of a unit: tokens, width.

        Returns:
            bool, shape (units · tokens, width).
        """
        key = number, path
        if self._by_row:
            first = self._num_rows[key]
            self._num_rows[key] += units
            rows = range(first, first + units)
            return torch.cat(
                [_drawn(slot, slot.mask_generator(self._step, path, row), shape) for row in rows]
            )
        if key not in self._generators:
            self._generators[key] = slot.mask_generator(self._step, path, 0)
        return _drawn(slot, self._generators[key], (units * shape[0], shape[1]))


def _drawn(slot: Slot, generator: torch.Generator, shape: tuple[int, int]) -> torch.Tensor:
    # Uniform numbers are drawn one after another on every CPU; `bernoulli_` is so on some only.
    drawn = torch.rand(shape, generator=generator, device=slot.values.device)
    return drawn >= slot.dropout
