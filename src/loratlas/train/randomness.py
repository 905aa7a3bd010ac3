"""Which numbers chance decides, and from which seed: the one source of randomness.

Every engine asks here, so that two placements of one seed see the same rows in the same
order and start from the same A wherever they share a site. Streams are keyed by words, not
drawn one after another: what one site draws never depends on which other sites there are.

Dropout is the exception: torch draws its masks, from a generator that the engine seeds: the
reference engine one for a whole trial (`dropout_seed`), since it draws inside torch's own modules,
the packed engine one for each site and step (`mask_seed`).
"""

import hashlib
import json
import math

import numpy as np
from numpy.typing import NDArray


def _stream(*key: str | int) -> np.random.Generator:
    """Return a private generator for a key; equal keys give equal streams everywhere."""
    digest = hashlib.sha256(json.dumps(key).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def row_order(seed: int, epoch: int, num_rows: int) -> NDArray[np.int64]:
    """Return the order in which an epoch visits its rows.

    Returns:
        a permutation of ``0 … num_rows - 1``, shape ``(num_rows,)``.
    """
    return _stream("order", seed, epoch).permutation(num_rows)


def initial_a(seed: int, path: str, rank: int, d_in: int) -> NDArray[np.float32]:
    """Return the initial A of a linear map, drawn as PEFT draws it.

    PEFT calls ``kaiming_uniform_(a=sqrt(5))``, which is uniform within ±1/sqrt(d_in)
    (``peft/tuners/lora/layer.py``, ``reset_lora_parameters``). Rows are drawn one after
    another, so the first rows of a larger rank are those of a smaller one.

    Returns:
        shape ``(rank, d_in)``.
    """
    bound = 1.0 / math.sqrt(d_in)
    drawn = _stream("A", seed, path).uniform(-bound, bound, size=(rank, d_in))
    return drawn.astype(np.float32)


def initial_embedding_b(seed: int, path: str, rank: int, d_out: int) -> NDArray[np.float32]:
    """Return the initial B of an embedding; PEFT draws B there and sets A to zero.

    Returns:
        shape ``(d_out, rank)``, standard normal, drawn column by column.
    """
    drawn = _stream("embedding B", seed, path).standard_normal(size=(rank, d_out))
    return np.ascontiguousarray(drawn.T, dtype=np.float32)


def initial_weight(
    seed: int, path: str, shape: tuple[int, ...], deviation: float
) -> NDArray[np.float32]:
    """Return the initial weight of a new module, normal with the given standard deviation."""
    return (_stream("weight", seed, path).standard_normal(shape) * deviation).astype(np.float32)


def masks(seed: int, epoch: int, row: int) -> np.random.Generator:
    """Return what decides the masks of a row at its visit in an epoch."""
    return _stream("masks", seed, epoch, row)


def score_noise(seed: int, path: str) -> float:
    """Return the score of a site by chance alone, uniform in [0, 1)."""
    return float(_stream("score noise", seed, path).random())


def exchange(seed: int, draw: int) -> np.random.Generator:
    """Return what decides who gets whose targets in a draw of rows that teach nothing."""
    return _stream("exchanged targets", seed, draw)


def null_seed(seed: int, draw: int) -> int:
    """Return the seed of torch's generator for the weights of an untrained model."""
    return int(_stream("untrained weights", seed, draw).integers(2**63))


def mask_seed(seed: int, step: int, path: str, row: int) -> int:
    """Return the seed of the dropout masks of one site in one optimiser step of a packed trial.

    Args:
        seed: of the trial.
        step: optimiser step.
        path: of the site.
        row: from which row of the step on masks are drawn.
    """
    return int(_stream("dropout masks", seed, step, path, row).integers(2**63))


def dropout_seed(seed: int) -> int:
    """Return the seed of torch's generator for the dropout masks of a trial."""
    return int(_stream("dropout", seed).integers(2**63))
