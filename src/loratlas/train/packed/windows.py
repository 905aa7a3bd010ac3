"""Which rows does a trial read in each optimiser step?"""

from collections.abc import Iterator, Sequence

from loratlas.data.masked import Masking
from loratlas.data.rows import TokenizedRow
from loratlas.train.randomness import masks, row_order
from loratlas.train.trial import TrainingSpec


def windows(
    rows: Sequence[TokenizedRow], training: TrainingSpec, *, seed: int, masking: Masking | None
) -> Iterator[list[TokenizedRow]]:
    """Yield the rows of one optimiser step after another, without end.

    A window is the rows of `accumulation` micro-batches; the last of an epoch may be short, as in
    Trainer.
    """
    size = training.batch * training.accumulation
    epoch = 0
    while True:
        order = row_order(seed, epoch, len(rows)).tolist()
        for start in range(0, len(order), size):
            yield [
                rows[index]
                if masking is None
                else masking.corrupt(rows[index], masks(seed, epoch, index))
                for index in order[start : start + size]
            ]
        epoch += 1
