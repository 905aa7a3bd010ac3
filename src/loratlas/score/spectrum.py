"""What would each further unit of rank take of the loss gradient at a site? Its spectrum.

A change of weights of rank r follows the gradient Ḡ of the training loss best along its first r
singular directions, and ‖Ḡ‖² is the sum of all squared singular values. So the k-th of them is the
marginal value of rank k: it never grows with k, and ranks can be shared out by it. LoRA-GA
(2407.05000) starts from the same decomposition.

Ḡ itself is never formed, of any map. Rows go through the model twice, as in a randomised
decomposition (N. Halko, P.-G. Martinsson and J. Tropp, 0909.4061, algorithms 4.1 and 5.1). The
first time Ḡ is multiplied by random vectors, twice as many as the curve has ranks and 8 more, which
gives a basis Q of what Ḡ reaches; the second time QᵀḠ is summed up, whose singular values are
returned. They are exact up to rounding where Ḡ has no more directions than Q has columns, as in
small maps and with few tokens; elsewhere each is at most the true one. The basis is that of all
rows, so that gradients of a half of them, or of all but a group, fall short of theirs a little.

QᵀḠ is kept for each of up to 8 groups of rows (`resampling`) in fp32: 2·ranks + 8 rows as long as
the shorter side of the weight. At 4096 by 4096 and 16 ranks that is 5 MiB a site.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from loratlas.allocate.table import Granularity
from loratlas.anatomy.sites import Site
from loratlas.score.backward import read_backward
from loratlas.score.capture import Seen
from loratlas.score.remarks import remarks
from loratlas.score.resampling import MeanGradient
from loratlas.score.row_gradients import Part, RowGradients
from loratlas.score.sample import Sample, sample_of, why_no_gradients
from loratlas.score.scorer import Found, Needs, Subject
from loratlas.score.slices import Slices
from loratlas.train.randomness import initial_a

_MORE = 8
Floats = NDArray[np.float64]


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

        Standard errors are over rows, by the jackknife over groups of them.

        Raises:
            TrialError: a loss or a gradient is no number, or fewer than two rows predict anything.
        """
        sample, slices = sample_of(subject), Slices(subject)
        sketches = [_Sketch(site, subject, sample) for site in subject.sites]
        reading = read_backward(subject, sample, lambda seen: sketches[seen.site].reach(seen))
        for sketch in sketches:
            sketch.settle()
        read_backward(subject, sample, lambda seen: sketches[seen.site].project(seen))
        curves = [sketch.curve() for sketch in sketches]
        values = np.array([curve.sum() for curve in curves])
        num_passes = 2 * len(sample.rows)
        return Found(
            values=values,
            stderr=np.array([sketch.stderr() for sketch in sketches]),
            curves=curves,
            halves=np.stack([sketch.halves() for sketch in sketches], axis=1),
            num_tokens=reading.num_tokens,
            slices=[slices.named(site, sketch.by_part) for site, sketch in enumerate(sketches)],
            num_forwards=num_passes,
            num_backwards=num_passes,
            notes=(*remarks(subject, sample, slices, reading, values), _NOISE),
        )


_NOISE = (
    "The gradient of few rows holds noise in every direction, which lifts all squared singular "
    "values; more rows lower it."
)


class _Sketch:
    """What is kept of one site's mean gradient.

    Gradients of maps that are wider than tall are transposed, so that the basis has the longer
    side and what is summed up the shorter one.
    """

    def __init__(self, site: Site, subject: Subject, sample: Sample) -> None:
        short, long = sorted((site.d_in, site.d_out))
        num_maps = site.num_experts or 1
        width = min(2 * subject.max_rank + _MORE, short)
        device = subject.base.device
        self._tall = site.d_out >= site.d_in
        self._num_ranks = min(subject.max_rank, short)
        drawn = initial_a(subject.seed, f"sketch of {site.path}", rank=width, d_in=short)
        self._vectors = torch.from_numpy(drawn).to(device).mT
        self._basis = torch.zeros(num_maps, long, width, device=device)
        self._inside = MeanGradient(sample.num_scored, (num_maps, width, short), device)

    def reach(self, seen: Seen) -> None:
        """Add what the gradients of some rows make of the random vectors."""
        self._basis += self._standing(seen).right(self._vectors).sum(0)

    def settle(self) -> None:
        """Turn what was reached into a basis; on the CPU, since not every device decomposes."""
        self._basis = torch.linalg.qr(self._basis.cpu()).Q.to(self._basis.device)

    def project(self, seen: Seen) -> None:
        """Add the gradients of some rows, in the basis."""
        self._inside.add(seen.rows, self._standing(seen).left(self._basis))

    def curve(self) -> Floats:
        """Return squared singular values, shape (ranks,); of experts the sum over them."""
        found: Floats = self._energies(self._inside.whole()).sum(0).numpy()
        return found

    def halves(self) -> Floats:
        """Return the value from each half of the rows, shape (2,)."""
        return self._inside.halves(self._value)

    def stderr(self) -> float:
        """Return the standard error of the value over rows."""
        return self._inside.stderr(self._value)

    def by_part(self, parts: Sequence[Part]) -> list[float]:
        """Return the value by part of the output."""
        inside = self._inside.whole()
        vectors = torch.linalg.eigh(inside @ inside.mT).eigenvectors[..., -self._num_ranks :]
        loads = inside.mT @ vectors
        if self._tall:
            loads = self._basis.cpu().double() @ vectors * loads.norm(dim=1, keepdim=True)
        by_output = loads.square().sum((0, 2)).to(self._basis.device)
        return [float(by_output[part].sum()) for part in parts]

    def _standing(self, seen: Seen) -> RowGradients:
        return seen.gradients if self._tall else seen.gradients.transposed()

    def _value(self, inside: torch.Tensor) -> float:
        return float(self._energies(inside).sum())

    def _energies(self, inside: torch.Tensor) -> torch.Tensor:
        """Return the largest squared singular values, descending, shape (maps, ranks)."""
        energies: torch.Tensor = torch.linalg.eigvalsh(inside @ inside.mT)
        return energies.flip(-1)[:, : self._num_ranks].clamp_min(0)
