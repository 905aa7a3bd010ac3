"""How strongly would LoRA itself be pushed at each site, at its first step?

At B = 0 the gradient of A is zero and that of B is s·Ḡ·Aᵀ, with Ḡ the gradient of the training loss
at the weight. A is the one that a trial of this seed starts from: uniform within ±1/√d_in, so that
E‖∇B‖² = s²·r·‖Ḡ‖²/(3·d_in). Raw, the probe would prefer sites with few inputs; multiplied by
3·d_in/(r·s²) it is an unbiased estimate of ‖Ḡ‖² whatever the width, the rank and the scale. The
scale cancels, and is not needed.

Each of the r rows of A gives an estimate of its own. They differ much where Ḡ has few directions
(of one direction alone, by √2 of the value), so that the standard error holds both: the rows of
text that were read, and the rows of A that were drawn.
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
from loratlas.score.row_gradients import Part
from loratlas.score.sample import Sample, sample_of, why_no_gradients
from loratlas.score.scorer import Found, Needs, Subject
from loratlas.score.slices import Slices
from loratlas.train.randomness import initial_a

Floats = NDArray[np.float64]


class LoraProbe:
    """Energy of the gradient of B at B = 0, corrected for the width of the input."""

    name = "lora_probe"
    title = "squared norm of the first gradient of B, times 3·d_in/(r·s²)"
    unit = "nats²/weight²"
    higher_is_better = True
    granularity: Granularity = "site"
    needs = Needs(labels=True, gradients=True)

    def why_not(self, subject: Subject) -> str | None:
        """Return what has no gradient, or None."""
        return why_no_gradients(subject)

    def measure(self, subject: Subject) -> Found:
        """Score the sites; standard errors are over rows and over the draw of A.

        Raises:
            TrialError: a loss or a gradient is no number, or fewer than two rows predict anything.
        """
        sample, slices = sample_of(subject), Slices(subject)
        probes = [_Probe(site, subject, sample) for site in subject.sites]
        reading = read_backward(subject, sample, lambda seen: probes[seen.site].add(seen))
        values = np.array([probe.value() for probe in probes])
        return Found(
            values=values,
            stderr=np.array([probe.stderr() for probe in probes]),
            halves=np.stack([probe.halves() for probe in probes], axis=1),
            num_tokens=reading.num_tokens,
            slices=[slices.named(site, probe.by_part) for site, probe in enumerate(probes)],
            num_forwards=len(sample.rows),
            num_backwards=len(sample.rows),
            notes=(*remarks(subject, sample, slices, reading, values), _few_draws(subject)),
        )


class _Probe:
    """The gradient of one site's B, of each map that the site holds."""

    def __init__(self, site: Site, subject: Subject, sample: Sample) -> None:
        num_maps, rank = site.num_experts or 1, subject.lora.rank
        device = subject.base.device
        drawn = initial_a(subject.seed, site.path, rank=num_maps * rank, d_in=site.d_in)
        self._a = torch.from_numpy(drawn).to(device).reshape(num_maps, rank, site.d_in)
        self._gradient = MeanGradient(sample.num_scored, (num_maps, site.d_out, rank), device)
        self._d_in, self._rank = site.d_in, rank

    def add(self, seen: Seen) -> None:
        """Add G Aᵀ of some rows."""
        self._gradient.add(seen.rows, seen.gradients.right(self._a.mT))

    def value(self) -> float:
        """Return the estimate of ‖Ḡ‖²."""
        return self._estimate(self._gradient.whole())

    def halves(self) -> Floats:
        """Return the estimate from each half of the rows, shape (2,)."""
        return self._gradient.halves(self._estimate)

    def stderr(self) -> float:
        """Return the standard error over rows, and over the rows of A where there are several."""
        by_draw = 3 * self._d_in * self._gradient.whole().square().sum((0, 1))
        of_draw = float(by_draw.var()) / self._rank if self._rank > 1 else 0.0
        return float(np.hypot(self._gradient.stderr(self._estimate), np.sqrt(of_draw)))

    def by_part(self, parts: Sequence[Part]) -> list[float]:
        """Return the estimate by part of the output."""
        by_output = self._corrected(self._gradient.whole().square().sum((0, 2)))
        return [float(by_output.to(self._a.device)[part].sum()) for part in parts]

    def _estimate(self, gradient: torch.Tensor) -> float:
        return float(self._corrected(gradient.square().sum()))

    def _corrected(self, energy: torch.Tensor) -> torch.Tensor:
        """Return what energy of G Aᵀ is expected of ‖G‖²: A's rows have the mean square 1/3d_in."""
        return energy * (3 * self._d_in / self._rank)


def _few_draws(subject: Subject) -> str:
    rank = subject.lora.rank
    return (
        f"Each value rests on {rank} random directions: of a gradient with one direction alone its "
        f"standard error is {np.sqrt(2 / rank):.0%}."
    )
