"""What would each further unit of rank take of the loss gradient at a site? Its spectrum.

A change of weights of rank r follows the gradient Ḡ of the training loss best along its first r
singular directions, and ‖Ḡ‖² is the sum of all squared singular values. So the k-th of them is the
marginal value of rank k: it never grows with k, and ranks can be shared out by it. LoRA-GA
(2407.05000) starts from the same decomposition.

Ḡ itself is never formed, of any map. One pass over the rows sums up two products with random
matrices, Y = ḠΩ and P = ΨḠ, and from an orthonormal basis Q of what Y reaches, (ΨQ)⁺P stands for
QᵀḠ (J. Tropp, A. Yurtsever, M. Udell and V. Cevher, 1609.00048, algorithm 4). Ω has twice as many
columns as the curve has ranks and 8 more, Ψ has twice as many rows as that. The spectrum is exact up
to rounding where Ḡ has no more directions than Ω has columns, as in small maps and with few tokens;
elsewhere what lies beyond them is mixed in. On gradients of language models, which fall off fast,
values at 16 ranks came out within a few percent, the last ranks of a curve within a few tenths.

Y is kept once and P for each of up to 4 groups of rows (`resampling`), in fp32: at 4096 by 4096 and
16 ranks 6 MiB a site.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from loratlas.allocate.table import Granularity
from loratlas.anatomy.sites import Site
from loratlas.score.backward import read_backward
from loratlas.score.capture import Seen
from loratlas.score.remarks import remarks
from loratlas.score.resampling import MeanGradient, wide
from loratlas.score.row_gradients import Part
from loratlas.score.sample import Sample, sample_of, why_no_gradients
from loratlas.score.scorer import Found, Needs, Subject
from loratlas.score.slices import Slices
from loratlas.train.randomness import initial_a

_MORE = 8
_GROUPS = 4
# Directions of Y that are this much weaker than its strongest, squared, are rounding.
_NOTHING = 1e-10
Floats = NDArray[np.float64]

_NOISE = (
    "The gradient of few rows holds noise in every direction, which lifts all squared singular "
    "values; more rows lower it."
)


class GradientSpectrum:
    """Squared singular values of the mean gradient."""

    name = "gradient_spectrum"
    title = "squared norm of the training loss gradient in its first singular directions"
    unit = "nats²/weight²"
    higher_is_better = True
    granularity: Granularity = "site"
    needs = Needs(labels=True, gradients=True)

    def why_not(self, subject: Subject) -> str | None:
        """Return what has no gradient, or None."""
        return why_no_gradients(subject)

    def measure(self, subject: Subject) -> Found:
        """Score the sites; a value is the sum of its curve.

        Standard errors are over rows, within the directions that all rows together have.

        Raises:
            TrialError: a loss or a gradient is no number, or fewer than two rows predict anything.
        """
        sample, slices = sample_of(subject), Slices(subject)
        sketches = [_Sketch(site, subject, sample) for site in subject.sites]
        reading = read_backward(subject, sample, lambda seen: sketches[seen.site].add(seen))
        spectra = [sketch.spectrum() for sketch in sketches]
        values = np.array([spectrum.curve.sum() for spectrum in spectra])
        return Found(
            values=values,
            stderr=np.array([spectrum.stderr for spectrum in spectra]),
            curves=[spectrum.curve for spectrum in spectra],
            halves=np.stack([spectrum.halves for spectrum in spectra], axis=1),
            num_tokens=reading.num_tokens,
            slices=[slices.named(site, spectrum.by_part) for site, spectrum in enumerate(spectra)],
            num_forwards=len(sample.rows),
            num_backwards=len(sample.rows),
            notes=(*remarks(subject, sample, slices, reading, values), _NOISE),
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Spectrum:
    """What is known of one site's mean gradient.

    Attributes:
        curve: squared singular values, shape (ranks,); of experts the sums over them.
        halves: the value from each half of the rows, shape (2,).
        stderr: of the value, over rows.
        by_output: the value by output, shape (d_out,).
    """

    curve: Floats
    halves: Floats
    stderr: float
    by_output: torch.Tensor

    def by_part(self, parts: Sequence[Part]) -> list[float]:
        """Return the value by part of the output."""
        return [float(self.by_output[part].sum()) for part in parts]


class _Sketch:
    """What is kept of one site's mean gradient: Y, and P by group of rows.

    Gradients of maps that are wider than tall are transposed, so that P, of which there is more,
    has the shorter side.
    """

    def __init__(self, site: Site, subject: Subject, sample: Sample) -> None:
        short, long = sorted((site.d_in, site.d_out))
        device = subject.base.device
        width = min(2 * subject.max_rank + _MORE, short)
        maps = site.num_experts or 1
        self._num_ranks = min(subject.max_rank, short)
        self._tall = site.d_out >= site.d_in
        self._omega = _drawn(subject, f"first sketch of {site.path}", width, short).mT
        self._psi = _drawn(subject, f"second sketch of {site.path}", 2 * width, long)
        self._y = torch.zeros(maps, long, width, device=device)
        self._p = MeanGradient(sample.num_scored, (maps, 2 * width, short), device, groups=_GROUPS)
        self._num_scored = int(sample.num_scored.sum())

    def add(self, seen: Seen) -> None:
        """Add the gradients of some rows."""
        standing = seen.gradients if self._tall else seen.gradients.transposed()
        self._y += standing.right(self._omega).sum(0)
        self._p.add(seen.rows, standing.left(self._psi.mT))

    def spectrum(self) -> _Spectrum:
        """Return what is known, once all rows were added."""
        y = wide(self._y) / self._num_scored
        basis = _orthonormal(y)
        inverse = _inverse(wide(self._psi) @ y @ basis)
        inside = inverse @ self._p.whole()
        energies, vectors = _eigh(inside @ inside.mT, self._num_ranks)
        within = vectors.mT @ inverse
        if self._tall:
            loads = y @ (basis @ vectors) * energies.sqrt()[:, None]
        else:
            loads = inside.mT @ vectors
        return _Spectrum(
            curve=energies.sum(0).cpu().numpy(),
            halves=self._p.halves(lambda p: self._value(inverse @ p)),
            stderr=self._p.stderr(lambda p: float((within @ p).square().sum())),
            by_output=loads.square().sum((0, 2)).to(self._y.device),
        )

    def _value(self, inside: torch.Tensor) -> float:
        return float(_eigh(inside @ inside.mT, self._num_ranks)[0].sum())


def _drawn(subject: Subject, key: str, rows: int, columns: int) -> torch.Tensor:
    """Return a random matrix of the subject's seed, shape (rows, columns)."""
    drawn = initial_a(subject.seed, key, rank=rows, d_in=columns)
    return torch.from_numpy(drawn).to(subject.base.device)


def _orthonormal(y: torch.Tensor) -> torch.Tensor:
    """Return T, shape (maps, k, k), with orthonormal columns in Y T, or zero where Y has no more.

    From YᵀY, which is small: Y is too long to be decomposed at every site.
    """
    energies, vectors = torch.linalg.eigh((y.mT @ y).cpu())
    there = energies > _NOTHING * energies[:, -1:]
    scales = torch.where(there, energies, 1.0).rsqrt() * there
    return (vectors * scales[:, None]).to(y.device)


def _inverse(tall: torch.Tensor) -> torch.Tensor:
    """Return the pseudoinverse of matrices whose columns are well conditioned, or zero."""
    gram = tall.mT @ tall
    zero = gram.diagonal(dim1=-2, dim2=-1) == 0
    found: torch.Tensor = torch.linalg.solve(gram + torch.diag_embed(zero.to(gram)), tall.mT)
    return found


def _eigh(gram: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the largest eigenvalues, descending, and their vectors, by map."""
    energies, vectors = torch.linalg.eigh(gram.cpu())
    largest = energies.flip(-1)[:, :count].clamp_min(0)
    return largest.to(gram.device), vectors.flip(-1)[..., :count].to(gram.device)
