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

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from loratlas.anatomy.sites import Site
from loratlas.score.capture import Seen
from loratlas.score.gradient_scorer import GradientScorer, Ledger
from loratlas.score.resampling import Kept, MeanGradient, jackknife
from loratlas.score.sample import Sample
from loratlas.score.scorer import Found, Subject
from loratlas.score.slices import Slices
from loratlas.train.randomness import initial_a

Floats = NDArray[np.float64]


class LoraProbe(GradientScorer):
    """Energy of the gradient of B at B = 0, corrected for the width of the input."""

    name = "lora_probe"
    title = "squared norm of the first gradient of B, times 3·d_in/(r·s²)"
    unit = "nats²/weight²"

    def _ledger(self, subject: Subject, sample: Sample, slices: Slices) -> Ledger:
        return _Probes(subject, sample, slices, self._groups(subject, sample))

    def _kept(self, subject: Subject) -> Kept:
        """Return A once, and the gradient of B by group."""
        rank = subject.lora.rank
        maps = [(site.num_experts or 1, site) for site in subject.sites]
        return Kept(
            once=sum(count * rank * site.d_in for count, site in maps),
            by_group=sum(count * rank * site.d_out for count, site in maps),
        )

    def _lower(self, subject: Subject) -> str:
        return f"the study's rank, {subject.lora.rank}"


class _Probes:
    """The probes of all sites; standard errors are over rows and over the draw of A."""

    def __init__(self, subject: Subject, sample: Sample, slices: Slices, groups: int) -> None:
        self._subject = subject
        self._slices = slices
        self._probes = [_Probe(site, subject, sample, groups) for site in subject.sites]

    def add(self, seen: Seen) -> None:
        """Add the gradients of some rows at one site."""
        self._probes[seen.site].add(seen)

    def found(self) -> Found:
        """Return the estimates."""
        found = [probe.estimate() for probe in self._probes]
        return Found(
            values=np.array([each.value for each in found]),
            stderr=np.array([each.stderr for each in found]),
            halves=np.stack([each.halves for each in found], axis=1),
            slices=[
                self._slices.of_outputs(site, each.by_output) for site, each in enumerate(found)
            ],
            notes=(_few_draws(self._subject),),
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Estimate:
    """What is known of ‖Ḡ‖² at one site.

    Attributes:
        value: of all rows.
        halves: of each half of the rows, shape (2,).
        stderr: of the value, over rows, and over the rows of A where there are several.
        by_output: the value by output, shape (d_out,).
    """

    value: float
    halves: Floats
    stderr: float
    by_output: torch.Tensor


class _Probe:
    """The gradient of one site's B, of each map that the site holds."""

    def __init__(self, site: Site, subject: Subject, sample: Sample, groups: int) -> None:
        num_maps, rank = site.num_experts or 1, subject.lora.rank
        device = subject.base.device
        drawn = initial_a(subject.seed, site.path, rank=num_maps * rank, d_in=site.d_in)
        self._a = torch.from_numpy(drawn).to(device).reshape(num_maps, rank, site.d_in)
        shape = (num_maps, site.d_out, rank)
        self._gradient = MeanGradient(sample.num_scored, shape, device, groups)
        self._rank = rank
        # What A's entries leave of energy: their mean square is 1/(3·d_in).
        self._correction = 3 * site.d_in / rank

    def add(self, seen: Seen) -> None:
        """Add G Aᵀ of some rows."""
        self._gradient.add(seen.rows, seen.gradients.right(self._a.mT))

    def estimate(self) -> _Estimate:
        """Return what is known, once all rows were added."""
        groups = self._gradient.groups()
        whole = groups.whole()
        by_draw = whole.square().sum((0, 1)) * self._correction * self._rank
        of_draw = float(by_draw.var()) / self._rank if self._rank > 1 else 0.0
        of_rows = jackknife(self._estimates(groups.left_out()))
        return _Estimate(
            value=float(by_draw.mean()),
            halves=self._estimates(groups.halves()),
            stderr=float(np.hypot(of_rows, np.sqrt(of_draw))),
            by_output=whole.square().sum((0, 2)) * self._correction,
        )

    def _estimates(self, gradients: torch.Tensor) -> Floats:
        """Return the estimates of several gradients, shape (gradients,)."""
        found: Floats = (gradients.square().sum((1, 2, 3)) * self._correction).cpu().numpy()
        return found


def _few_draws(subject: Subject) -> str:
    rank = subject.lora.rank
    return (
        f"Each value rests on {rank} random directions: of a gradient with one direction alone its "
        f"standard error is {np.sqrt(2 / rank):.0%}."
    )
