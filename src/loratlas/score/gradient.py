"""How much does the loss push at each site's weight? Gradient energy, raw and by activation.

The value of a site is the mean over rows of ‖G_n‖²_F: the trace of the empirical Fisher information
of its weight. G_n is scaled so that the mean over rows is the gradient of the training loss,
Σ -ln p / Σ scored: it is the gradient of a row's own sum, divided by the mean number of scored
predictions of a row. So rows weigh as they do in training.

`gradient_normalised` divides by the mean squared norm of the tokens that the site reads. Writing
Wx = (W/c)(cx) changes no function and multiplies ‖G‖² by c²; the quotient stays. In K-FAC's
factorisation (J. Martens and R. Grosse, 1503.05671) a token has E‖G‖² = E‖x‖² E‖δ‖², so that the
quotient is about the energy of the gradient at the site's output: how much the loss feels what the
site puts out, whatever the size of what it reads.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from loratlas.errors import TrialError
from loratlas.score.capture import Seen
from loratlas.score.gradient_scorer import GradientScorer, Ledger
from loratlas.score.remarks import concentration
from loratlas.score.resampling import halves, jackknife
from loratlas.score.sample import Sample
from loratlas.score.scorer import Found, Subject
from loratlas.score.slices import Slices

Floats = NDArray[np.float64]


class Gradient(GradientScorer):
    """Mean energy of the rows' gradients."""

    name = "gradient"
    title = "mean over rows of the squared norm of the gradient at the site's weight"
    unit = "nats²/weight²"
    by_activation = False

    def _ledger(self, subject: Subject, sample: Sample, slices: Slices) -> Ledger:
        return _Energies(subject, sample, slices, by_activation=self.by_activation)


class GradientNormalised(Gradient):
    """Mean energy of the rows' gradients, divided by that of a token's inputs."""

    name = "gradient_normalised"
    title = "squared norm of the gradient at the site's weight by squared norm of a token it reads"
    unit = "nats²/output²"
    by_activation = True

    def why_not(self, subject: Subject) -> str | None:
        """Return what has no gradient or shows no inputs, or None."""
        hidden = [site.path for site in subject.sites if site.kind == "expert"]
        if hidden:
            return (
                f"{hidden[0]} is a bare parameter, and what it reads shows at no module's door; "
                "score it with gradient, or choose among the other sites"
            )
        return super().why_not(subject)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Sums:
    """Sums over some rows; each may have an axis before that of the sites.

    Attributes:
        energy: Σ_n‖G_n‖², shape (..., sites).
        rows: how many rows.
        inputs: Σ_t‖x_t‖² over the tokens that went through, shape (..., sites).
        tokens: how many those are, shape (..., sites).
    """

    energy: Floats
    rows: int | Floats
    inputs: Floats
    tokens: Floats

    def values(self) -> Floats:
        """Return the mean energy by the mean squared norm of a token; 0 where nothing is read."""
        mean = self.energy / self.rows
        return np.divide(mean * self.tokens, self.inputs, where=self.inputs > 0, out=mean * 0)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Entries:
    """What was found of each row, shapes (rows, sites)."""

    energy: Floats
    inputs: Floats
    tokens: Floats

    def sums(self, rows: slice = slice(None)) -> _Sums:
        return _Sums(
            energy=self.energy[rows].sum(0),
            rows=len(self.energy[rows]),
            inputs=self.inputs[rows].sum(0),
            tokens=self.tokens[rows].sum(0),
        )

    def left_out(self) -> _Sums:
        """Return the sums without each row in turn."""
        whole = self.sums()
        return _Sums(
            energy=whole.energy - self.energy,
            rows=len(self.energy) - 1,
            inputs=whole.inputs - self.inputs,
            tokens=whole.tokens - self.tokens,
        )

    def halves(self) -> tuple[_Sums, _Sums]:
        first, second = halves(len(self.energy))
        return self.sums(slice(first.start, first.stop)), self.sums(
            slice(second.start, second.stop)
        )


class _Energies:
    """Takes down the energies of each row at each site."""

    def __init__(
        self, subject: Subject, sample: Sample, slices: Slices, *, by_activation: bool
    ) -> None:
        shape = (len(sample.rows), len(subject.sites))
        device = subject.base.device
        self._by_activation = by_activation
        self._slices = slices
        self._energies = [
            torch.zeros(shape[0], len(parts), device=device) for parts in slices.parts
        ]
        # One token of norm 1 in each row leaves the energy as it is.
        fill = torch.zeros if by_activation else torch.ones
        self._inputs, self._tokens = fill(shape, device=device), fill(shape, device=device)
        self._scale = float(sample.num_scored.mean()) ** -2

    def add(self, seen: Seen) -> None:
        """Take down one site in one pass."""
        parts = self._slices.parts[seen.site]
        self._energies[seen.site][seen.rows] = seen.gradients.energies(parts)
        if self._by_activation:
            assert seen.input_energies is not None, "why_not lets no such site pass"
            self._inputs[seen.rows, seen.site] = seen.input_energies()
            self._tokens[seen.rows, seen.site] = seen.num_tokens.float()

    def found(self) -> Found:
        """Return the values."""
        entries = self._entries()
        values = entries.sums().values()
        return Found(
            values=values,
            stderr=jackknife(entries.left_out().values()),
            halves=np.stack([half.values() for half in entries.halves()]),
            slices=self._by_part(values),
            notes=tuple(concentration(values)),
        )

    def _entries(self) -> _Entries:
        """Return what was taken down.

        Raises:
            TrialError: an energy is no number.
        """
        energy = np.stack([_numpy(each).sum(1) for each in self._energies], axis=1)
        if not np.isfinite(energy).all():
            raise TrialError("the gradient of a row is no number: nothing can be scored")
        return _Entries(
            energy=energy * self._scale,
            inputs=_numpy(self._inputs),
            tokens=_numpy(self._tokens),
        )

    def _by_part(self, values: Floats) -> list[dict[str, float] | None]:
        """Return the values by part; together they are the site's."""
        found = []
        for site, value in enumerate(values):
            by_part = _numpy(self._energies[site]).sum(0)
            found.append(self._slices.named(site, value * by_part / (by_part.sum() or 1.0)))
        return found


def _numpy(tensor: torch.Tensor) -> Floats:
    found: Floats = tensor.cpu().numpy().astype(np.float64)
    return found
