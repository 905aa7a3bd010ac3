"""What would each further unit of rank take of the loss gradient at a site? Its spectrum.

A change of weights of rank r follows the gradient Ḡ of the training loss best along its first r
singular directions, and ‖Ḡ‖² is the sum of all squared singular values. So the k-th of them is the
marginal value of rank k: it never grows with k, and ranks can be shared out by it. LoRA-GA
(2407.05000) starts from the same decomposition.

One pass over the rows sums up two products with random matrices, Y = ḠΩ and P = ΨḠ, and from an
orthonormal basis Q of what Y reaches, (ΨQ)⁺P stands for QᵀḠ (J. Tropp, A. Yurtsever, M. Udell and
V. Cevher, 1609.00048, algorithm 4). Ω has w columns: twice as many as the curve has ranks and 8
more, at least 32; Ψ has 2w rows. The spectrum is exact up to rounding where Ḡ has no more than w
directions, as with few tokens; elsewhere what lies beyond them is mixed in. Where the shorter side
of a map is w or less, Ω is the identity and Y is Ḡ itself.

Y is kept once and P for each of up to 4 groups of rows (`resampling`), in fp32, of all sites at the
same time: 9·n·w numbers of an n by n map. At 4096 by 4096 and the 32 ranks that a study of rank 8
asks for, w = 72, those are 10 MiB a site, where Ḡ has 64; below n = 9·w they are more than Ḡ itself
would take. All sites together keep within `MOST_BYTES`: with fewer groups beyond that, or not at
all.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from loratlas.anatomy.sites import Site
from loratlas.score.capture import Seen
from loratlas.score.gradient_scorer import GradientScorer, Ledger
from loratlas.score.resampling import Kept, MeanGradient, jackknife, wide
from loratlas.score.sample import Sample
from loratlas.score.scorer import Found, Subject
from loratlas.score.slices import Slices
from loratlas.train.randomness import initial_a

_MORE, _FEWEST = 8, 32
# Directions of Y that are this much weaker than its strongest, squared, are rounding.
_NOTHING = 1e-10
Floats = NDArray[np.float64]

_NOISE = (
    "The gradient of few rows holds noise in every direction, which lifts all squared singular "
    "values; more rows lower it."
)


class GradientSpectrum(GradientScorer):
    """Squared singular values of the mean gradient; a value is the sum of its curve.

    Standard errors are over rows, within the directions that all rows together have.
    """

    name = "gradient_spectrum"
    title = "squared norm of the training loss gradient in its first singular directions"
    unit = "nats²/weight²"
    most_groups = 4

    def _ledger(self, subject: Subject, sample: Sample, slices: Slices) -> Ledger:
        return _Sketches(subject, sample, slices, self._groups(subject, sample))

    def _kept(self, subject: Subject) -> Kept:
        """Return Y once, and P by group; Ω and Ψ are shared by sites of one shape."""
        shapes = [_Shape.of(site, subject.max_rank) for site in subject.sites]
        return Kept(
            once=sum(each.maps * each.long * each.width for each in shapes),
            by_group=sum(each.maps * 2 * each.width * each.short for each in shapes),
        )

    def _lower(self, subject: Subject) -> str:
        return f"the number of ranks, {subject.max_rank}, which goes with the study's"


class _Shape(NamedTuple):
    """What a site's sketch is measured by.

    Attributes:
        maps: experts, or one map.
        short: features on the shorter side of a map.
        long: on the longer one.
        width: columns of Ω.
    """

    maps: int
    short: int
    long: int
    width: int

    @classmethod
    def of(cls, site: Site, max_rank: int) -> "_Shape":
        short, long = sorted((site.d_in, site.d_out))
        width = min(max(2 * max_rank + _MORE, _FEWEST), short)
        return cls(site.num_experts or 1, short, long, width)


class _Sketches:
    """The sketches of all sites."""

    def __init__(self, subject: Subject, sample: Sample, slices: Slices, groups: int) -> None:
        drawn = _Drawn(subject)
        self._slices = slices
        self._sketches = [_Sketch(site, subject, sample, drawn, groups) for site in subject.sites]

    def add(self, seen: Seen) -> None:
        """Add the gradients of some rows at one site."""
        self._sketches[seen.site].add(seen)

    def found(self) -> Found:
        """Return the spectra."""
        spectra = [sketch.spectrum() for sketch in self._sketches]
        return Found(
            values=np.array([spectrum.curve.sum() for spectrum in spectra]),
            stderr=np.array([spectrum.stderr for spectrum in spectra]),
            curves=[spectrum.curve for spectrum in spectra],
            halves=np.stack([spectrum.halves for spectrum in spectra], axis=1),
            slices=[
                self._slices.of_outputs(site, each.by_output) for site, each in enumerate(spectra)
            ],
            notes=(_NOISE,),
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


class _Sketch:
    """What is kept of one site's mean gradient: Y, and P by group of rows.

    Gradients of maps that are wider than tall are transposed, so that P, of which there is more,
    has the shorter side.
    """

    def __init__(
        self, site: Site, subject: Subject, sample: Sample, drawn: "_Drawn", groups: int
    ) -> None:
        maps, short, long, width = _Shape.of(site, subject.max_rank)
        device = subject.base.device
        self._num_ranks = min(subject.max_rank, short)
        self._tall = site.d_out >= site.d_in
        self._omega = (
            torch.eye(short, device=device) if width == short else drawn("Ω", width, short).mT
        )
        self._psi = drawn("Ψ", 2 * width, long)
        self._y = torch.zeros(maps, long, width, device=device)
        self._p = MeanGradient(sample.num_scored, (maps, 2 * width, short), device, groups)
        self._num_scored = int(sample.num_scored.sum())

    def add(self, seen: Seen) -> None:
        """Add the gradients of some rows."""
        standing = seen.gradients if self._tall else seen.gradients.transposed()
        self._y += standing.joined().right(self._omega)[0]
        self._p.add(seen.rows, standing.left(self._psi.mT))

    def spectrum(self) -> _Spectrum:
        """Return what is known, once all rows were added."""
        sums = self._p.groups()
        y = wide(self._y) / self._num_scored
        basis = _orthonormal(y)
        # Small, and so taken apart on the CPU, as other small matrices are.
        inverse = torch.linalg.pinv((wide(self._psi) @ y @ basis).cpu()).to(y.device)
        groups = sums.mapped(lambda p: inverse @ p)
        inside = groups.whole()
        energies, vectors = _largest(inside, self._num_ranks)
        if self._tall:
            loads = y @ (basis @ vectors) * energies.sqrt()[:, None]
        else:
            loads = inside.mT @ vectors
        return _Spectrum(
            curve=energies.sum(0).cpu().numpy(),
            halves=self._values(groups.halves()),
            stderr=float(jackknife(self._values(groups.left_out()))),
            by_output=loads.square().sum((0, 2)),
        )

    def _values(self, insides: torch.Tensor) -> Floats:
        """Return the values of several mean gradients, shape (gradients,)."""
        energies = torch.linalg.eigvalsh((insides @ insides.mT).cpu())
        found: Floats = energies[..., -self._num_ranks :].clamp_min(0).sum((1, 2)).numpy()
        return found


class _Drawn:
    """Random matrices of a subject; sites of one shape share them."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._known: dict[tuple[str, int, int], torch.Tensor] = {}

    def __call__(self, name: str, rows: int, columns: int) -> torch.Tensor:
        """Return the matrix of a name, shape (rows, columns)."""
        key = name, rows, columns
        if key not in self._known:
            drawn = initial_a(self._subject.seed, f"sketch {name}", rank=rows, d_in=columns)
            self._known[key] = torch.from_numpy(drawn).to(self._subject.base.device)
        return self._known[key]


def _orthonormal(y: torch.Tensor) -> torch.Tensor:
    """Return T, shape (maps, k, k), with orthonormal columns in Y T, or zero where Y has no more.

    From YᵀY, which is small: Y is too long to be decomposed at every site.
    """
    energies, vectors = torch.linalg.eigh((y.mT @ y).cpu())
    there = energies > _NOTHING * energies[:, -1:]
    scales = torch.where(there, energies, 1.0).rsqrt() * there
    found: torch.Tensor = (vectors * scales[:, None]).to(y.device)
    return found


def _largest(inside: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return squared singular values, descending, (maps, count), and left vectors by column."""
    energies, vectors = torch.linalg.eigh((inside @ inside.mT).cpu())
    largest = energies.flip(-1)[..., :count].clamp_min(0)
    return largest.to(inside.device), vectors.flip(-1)[..., :count].to(inside.device)
