"""Which definition turns a given loss into a given perplexity, as far as one model can tell.

The model at hand need not be the one that gave the figures: an adapter may be missing, or a
checkpoint another. So two questions are kept apart. Does the model give *both* figures under a
definition? Then it reproduces them. Or does it only put the same distance between them? That
distance, ln(perplexity) - loss, is the *excess* in nats; it is 0 where perplexity is exp(loss).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from loratlas.errors import RequestError
from loratlas.measure.audit import tallies
from loratlas.measure.audit.tallies import Tally
from loratlas.measure.audit.variants import CORPUS, Average, Reading, batch_sizes

Verdict = Literal["reproduces", "near", "far"]

RESAMPLES = 200
_INSIDE = (2.5, 97.5)
# Another machine, library or batch moves a loss by far less; a wrong definition by more.
_ROUNDING = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A figure as it was printed: its value, and half a unit of its last digit."""

    value: float
    half_unit: float

    @classmethod
    def parse(cls, text: str, name: str) -> Self:
        """Read a printed figure; commas between thousands are let through.

        Raises:
            RequestError: it is no finite number.
        """
        try:
            number = Decimal(text.replace(",", ""))
        except InvalidOperation:
            raise RequestError(f"{name}: a number such as 3.089, not {text!r}") from None
        exponent = number.as_tuple().exponent
        value = float(number)
        if not isinstance(exponent, int) or not math.isfinite(value):
            raise RequestError(f"{name}: a finite number such as 3.089, not {text!r}")
        return cls(value=value, half_unit=0.5 * 10.0**exponent)


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """The pair that is to be explained: a loss in nats per token, and a perplexity."""

    loss: Figure
    perplexity: Figure

    def __post_init__(self) -> None:
        if self.loss.value < 0:
            raise RequestError(f"LOSS: at least 0, not {self.loss.value:g}")
        if self.perplexity.value < 1:
            raise RequestError(
                f"PERPLEXITY: at least 1, which a perfect model has, not {self.perplexity.value:g}"
            )

    @property
    def log_perplexity(self) -> float:
        """Ln of the perplexity."""
        return math.log(self.perplexity.value)

    @property
    def excess(self) -> float:
        """Nats by which the perplexity is above exp(loss)."""
        return self.log_perplexity - self.loss.value

    @property
    def log_rounding(self) -> float:
        """How far ln(perplexity) may be off as printed."""
        return self.perplexity.half_unit / self.perplexity.value


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """What one variant makes of the model: the pair that it would report, beside the given one.

    Attributes:
        log_perplexity: ln of the perplexity that it reports.
        excess: nats above the loss that Trainer would report beside it.
        excess_range: 2.5% to 97.5% of the excess over draws of as many rows, with replacement.
        distance: nats between its excess and the given one.
        allowed: nats that it may be off and still be called near: the spread over draws, the
            rounding of the given figures, and the gap between the losses where they differ.
        verdict: `reproduces`: both figures; `near`: the excess alone, within `allowed`.
    """

    log_perplexity: float
    excess: float
    excess_range: tuple[float, float]
    distance: float
    allowed: float
    verdict: Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """What can be said of a loss and a perplexity.

    Attributes:
        given: the pair.
        losses: the losses that Trainer would report, by batch size and by what is left out.
        same_loss: whether the given loss is one of them, to rounding.
        loss_gap: nats between the given loss and the nearest of them.
        accounts: by the name of the variant; None where it does not apply.
    """

    given: Given
    losses: Mapping[str, float]
    same_loss: bool
    loss_gap: float
    accounts: Mapping[str, Account | None]

    def named(self, verdict: Verdict) -> list[str]:
        """Return the variants of a verdict, the nearest first."""
        found = {name: account for name, account in self.accounts.items() if account is not None}
        names = [name for name, account in found.items() if account.verdict == verdict]
        return sorted(names, key=lambda name: found[name].distance)

    @property
    def nearest(self) -> str:
        """The variant whose excess comes nearest to the given one."""
        found = {name: account for name, account in self.accounts.items() if account is not None}
        return min(found, key=lambda name: found[name].distance)

    @property
    def tells(self) -> bool:
        """Whether the model tells the given pair from plain exp(loss).

        It does not where its own loss is further from the given one than the excess is large:
        then any definition could be called near.
        """
        plain = self.accounts[CORPUS]
        rounding = self.given.log_rounding + self.given.loss.half_unit
        return plain is None or plain.verdict != "near" or abs(self.given.excess) <= rounding


def explain(given: Given, readings: Mapping[str, Reading], *, batch: int) -> Explanation:
    """Compare a loss and a perplexity with what every variant makes of a model and rows.

    Args:
        given: the pair.
        readings: what every variant says of the model.
        batch: batch size of the loss that the variants are set against.
    """
    losses = _trainer_losses(readings, batch)
    gap = min(abs(given.loss.value - loss) for loss in losses.values())
    same = gap <= given.loss.half_unit + _ROUNDING * given.loss.value
    draws = _draws(_scored(readings), batch)
    accounts = {
        name: _account(given, reading, draws, losses[f"batch_means_{batch}"], 0.0 if same else gap)
        for name, reading in readings.items()
    }
    return Explanation(given=given, losses=losses, same_loss=same, loss_gap=gap, accounts=accounts)


def _scored(readings: Mapping[str, Reading]) -> Tally:
    tally = readings[CORPUS].tally
    assert tally is not None, "the corpus loss always applies"
    return tally


def _trainer_losses(readings: Mapping[str, Reading], batch: int) -> dict[str, float]:
    """Return the losses that Trainer may have reported for these rows."""
    scored = _scored(readings)
    losses = {CORPUS: scored.mean}
    for size in batch_sizes(batch):
        losses[f"batch_means_{size}"] = tallies.batch_means(scored, size)
        for name in ("eos_masked", "first_label_counted"):
            tally = readings[name].tally
            if tally is not None:
                losses[f"batch_means_{size}, {name}"] = tallies.batch_means(tally, size)
    return losses


class _Draw(NamedTuple):
    """Rows drawn with replacement, as many as there are, and Trainer's loss on them."""

    rows: NDArray[np.int64]
    loss: float


def _draws(scored: Tally, batch: int) -> list[_Draw]:
    chance = np.random.default_rng(0)
    count = len(scored.nll)
    drawn = [chance.integers(count, size=count) for _ in range(RESAMPLES)]
    return [_Draw(rows, tallies.batch_means(scored.take(rows), batch)) for rows in drawn]


def _account(
    given: Given, reading: Reading, draws: Sequence[_Draw], loss: float, gap: float
) -> Account | None:
    if reading.tally is None:
        return None
    log_perplexity = reading.variant.average(reading.tally)
    excess = log_perplexity - loss
    low, high = _excess_range(reading.variant.average, reading.tally, draws)
    distance = abs(excess - given.excess)
    rounding = given.log_rounding + given.loss.half_unit
    allowed = max(excess - low, high - excess, 0.0) + rounding + gap
    off = abs(log_perplexity - given.log_perplexity)
    verdict: Verdict = "near" if distance <= allowed else "far"
    if gap == 0 and off <= given.log_rounding + _ROUNDING * given.log_perplexity:
        verdict = "reproduces"
    return Account(
        log_perplexity=log_perplexity,
        excess=excess,
        excess_range=(low, high),
        distance=distance,
        allowed=allowed,
        verdict=verdict,
    )


def _excess_range(average: Average, tally: Tally, draws: Sequence[_Draw]) -> tuple[float, float]:
    """Return how far the excess moves when other rows of the same kind are drawn.

    Where a variant counts windows instead of rows, as many windows are drawn apart.
    """
    count = len(tally.nll)
    chance = np.random.default_rng(1)
    found = []
    for draw in draws:
        own = draw.rows if len(draw.rows) == count else chance.integers(count, size=count)
        drawn = tally.take(own)
        if drawn.count.sum():
            found.append(average(drawn) - draw.loss)
    low, high = np.percentile(found, _INSIDE)
    return float(low), float(high)
