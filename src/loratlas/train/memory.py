"""What can be done where memory does not suffice for a step of training?"""

import gc
from dataclasses import replace

import torch

from loratlas.train.trial import TrainingSpec

# What torch says where running out of memory has no class of its own: a CPU, MPS, and CUDA outside
# of its allocator.
_SAID = ("can't allocate memory", "not enough memory", "out of memory", "_ALLOC_FAILED")


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory does not suffice."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _SAID)


def micro_batches(training: TrainingSpec, num_rows: int) -> list[TrainingSpec]:
    """Return the same training with ever smaller micro-batches: first as asked, last row by row.

    Each next size is the largest that divides the one before, with as many more micro-batches in
    a step. An epoch is its rows in order, cut into steps of `batch * accumulation` rows; so each
    step reads the same rows in all of them, the short one at the end of an epoch too.

    Args:
        training: as asked.
        num_rows: training rows; a size that holds them all would take as much as the one before.
    """
    found = [training]
    window = training.batch * training.accumulation
    for batch in range(min(training.batch, num_rows) - 1, 0, -1):
        if found[-1].batch % batch == 0:
            found.append(replace(training, batch=batch, accumulation=window // batch))
    return found


def give_back(device: torch.device) -> None:
    """Free what a failed step held, cycles included, so that the next one finds it."""
    gc.collect()
    if device.type != "cpu":
        torch.accelerator.empty_cache()
