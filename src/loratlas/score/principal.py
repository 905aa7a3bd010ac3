"""In which directions do vectors vary most, when they come chunk by chunk and are not kept?

Incremental principal components by D. A. Ross et al., Incremental Learning for Robust Visual
Tracking, International Journal of Computer Vision 77, 2008, section 3: what is known of the chunks
before is k directions with their lengths; they are decomposed again together with the next chunk,
and with one row for the distance between the old mean and the new.

PEFT's EVA takes the same step (`IncrementalPCA` in peft/utils/incremental_pca.py), and a test holds
the directions against it. It is not used here, because it refuses a chunk with fewer vectors than
directions, as a pass over short rows may be; works in float64 from the second chunk on, which not
every device has; and divides 0 by 0 where all vectors are equal.
"""

import numpy as np
import torch
from numpy.typing import NDArray

# As in PEFT's decomposition (peft/tuners/lora/eva.py, SVDHook; peft/utils/incremental_pca.py).
_SEED = 42
_OVERSAMPLING = 2
_ITERATIONS = 4
# Of a value that is the mean of many like it, in float32.
_ROUNDING = 16 * float(np.finfo(np.float32).eps)


class PrincipalComponents:
    """The first directions of all vectors so far.

    Args:
        count: how many directions are followed.

    Attributes:
        directions: orthonormal rows, shape (at most count, width).
        num_vectors: vectors so far.
    """

    def __init__(self, count: int) -> None:
        self.directions = torch.empty(0, 0)
        self.num_vectors = 0
        self._count = count
        self._lengths = torch.empty(0)
        self._mean = torch.empty(0)
        self._scatter = 0.0

    def add(self, vectors: torch.Tensor) -> None:
        """Take in one more chunk.

        Args:
            vectors: shape (vectors, width), on any device.
        """
        if len(vectors) == 0:
            return
        chunk = vectors.float()
        mean = chunk.mean(dim=0)
        centred = chunk - mean
        rows = [centred]
        if self.num_vectors:
            between = (self._mean - mean) * (self._weight_of(len(chunk)) ** 0.5)
            rows = [self._lengths[:, None] * self.directions, centred, between[None]]
            self._scatter += _squared(between)
        else:
            self._mean = torch.zeros_like(mean)
        self._scatter += _squared(centred)
        self.num_vectors += len(chunk)
        self._mean = self._mean + (mean - self._mean) * (len(chunk) / self.num_vectors)
        self._lengths, self.directions = _leading(torch.cat(rows), self._count)

    def ratios(self) -> NDArray[np.float64]:
        """Return the share of the variance that lies in each direction, the largest first.

        Returns:
            shape (count or fewer,): n vectors have n - 1 directions, one vector has one of length
            0. Zeros where the vectors vary no more than rounding does.
        """
        lengths = self._lengths[: max(1, self.num_vectors - 1)]
        squares: NDArray[np.float64] = lengths.cpu().double().square().numpy()
        energy = self._scatter + self.num_vectors * _squared(self._mean)
        return squares / self._scatter if self._scatter > _ROUNDING**2 * energy else 0 * squares

    def _weight_of(self, num_new: int) -> float:
        """Return n·m / (n + m) of n vectors so far and m new ones."""
        return self.num_vectors * num_new / (self.num_vectors + num_new)


def _squared(tensor: torch.Tensor) -> float:
    return float(tensor.square().sum())


def _leading(rows: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the largest singular values and their right singular vectors, at most `count`.

    Where the matrix is large enough they are found in a random subspace (N. Halko et al., SIAM
    Review 53, 2011, algorithm 4.4), in time that grows with `count` and not with the shorter side.
    """
    size = _OVERSAMPLING * count
    if size > min(rows.shape):
        _, lengths, directions = torch.linalg.svd(rows, full_matrices=False)
    else:
        with torch.random.fork_rng(devices=[rows.device] if rows.is_cuda else []):
            torch.manual_seed(_SEED)
            _, lengths, columns = torch.svd_lowrank(rows, q=size, niter=_ITERATIONS)
        directions = columns.mT
    return lengths[:count], directions[:count]
