"""Which rows does a trial read in each optimiser step?"""

from collections.abc import Iterator, Sequence

from loratlas.data.masked import Masking
from loratlas.data.rows import TokenizedRow
from loratlas.train.randomness import masks, row_order
from loratlas.train.trial import TrainingSpec


def windows(
    rows: Sequence[TokenizedRow],
    training: TrainingSpec,
    *,
    seed: int,
    masking: Masking | None,
    first: int = 0,
) -> Iterator[list[TokenizedRow]]:
    """Yield the rows of one optimiser step after another, without end.

    A window is the rows of `accumulation` micro-batches; the last of an epoch may be short, as in
    Trainer.

    Args:
        rows: the training rows.
        training: how many of them make a step.
        seed: of their order and masks.
        masking: how rows are masked at each visit, for a masked language model.
        first: optimiser steps that are done: what is yielded begins after them.
    """
    size = training.batch * training.accumulation
    epoch, done = divmod(first, -(-len(rows) // size))
    while True:
        order = row_order(seed, epoch, len(rows)).tolist()
        for start in range(done * size, len(order), size):
            yield [
                rows[index]
                if masking is None
                else masking.corrupt(rows[index], masks(seed, epoch, index))
                for index in order[start : start + size]
            ]
        epoch, done = epoch + 1, 0
