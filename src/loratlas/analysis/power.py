"""What can this many seeds tell, before anything is spent?

Two limits, both over the contrasts of a study with its baseline, paired by seed. A difference
must be large against its own spread over seeds for a paired t test to find it: the noncentral t
distribution says how large (J. Cohen, Statistical Power Analysis, 1988, chapter 2). And an
exact sign-flip test of n pairs has 2^n equally likely outcomes, so that its two-sided p is never
below 2/2^n, whatever the difference. Holm's correction compares the smallest p of m contrasts
with 5%/m; both limits are said for that one, the hardest.

The spread is that of *new seeds on the same rows*; new rows would add to it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import optimize, stats

ALPHA = 0.05
POWER = 0.8
_MOST_SEEDS = 64
# Beyond this many standard deviations nobody asks whether a difference can be seen.
_LARGEST_EFFECT = 1e4


@dataclass(frozen=True, kw_only=True, slots=True)
class Pilot:
    """What earlier seeds say of the spread.

    Attributes:
        source: where the seeds come from.
        deviation: standard deviation over seeds of a paired difference of losses, in nats per
            token, pooled over contrasts.
        num_differences: paired differences that it rests on.
    """

    source: str
    deviation: float
    num_differences: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Power:
    """What a study's seeds can tell.

    Attributes:
        num_seeds: paired seeds of each contrast.
        num_contrasts: contrasts that are corrected for.
        smallest_p: the smallest p that the exact sign-flip test can reach after correction.
        seeds_needed: seeds with which that is at most 5%.
        smallest_detectable: difference found with a power of 80%, in standard deviations of the
            paired differences over seeds; None with fewer than two seeds or no contrast.
        pilot: what is known of that deviation, None where nothing is.
    """

    num_seeds: int
    num_contrasts: int
    smallest_p: float | None
    seeds_needed: int | None
    smallest_detectable: float | None
    pilot: Pilot | None = None

    @property
    def smallest_detectable_loss(self) -> float | None:
        """The smallest detectable difference in nats per token, None without a pilot."""
        if self.pilot is None or self.smallest_detectable is None:
            return None
        return self.smallest_detectable * self.pilot.deviation


def power_of(num_seeds: int, num_contrasts: int, pilot: Pilot | None = None) -> Power:
    """Return what so many seeds can tell of so many contrasts."""
    some = num_contrasts > 0
    return Power(
        num_seeds=num_seeds,
        num_contrasts=num_contrasts,
        smallest_p=smallest_sign_flip_p(num_seeds, num_contrasts) if some else None,
        seeds_needed=seeds_for_sign_flip(num_contrasts) if some else None,
        smallest_detectable=smallest_detectable(num_seeds, num_contrasts) if some else None,
        pilot=pilot,
    )


def smallest_sign_flip_p(num_pairs: int, num_contrasts: int = 1) -> float:
    """Return the smallest two-sided p of the exact sign-flip test: contrasts * 2 / 2^pairs.

    All signs equal is one of 2^n outcomes, and its mirror image is as extreme.
    """
    return min(1.0, num_contrasts * 2.0 ** (1 - num_pairs))


def seeds_for_sign_flip(num_contrasts: int = 1, *, alpha: float = ALPHA) -> int:
    """Return the fewest pairs with which the exact sign-flip test can reach alpha."""
    return next(n for n in range(1, _MOST_SEEDS) if smallest_sign_flip_p(n, num_contrasts) <= alpha)


def power_of_paired_t(effect: float, num_pairs: int, *, alpha: float = ALPHA) -> float:
    """Return the probability that a two-sided paired t test finds an effect.

    Args:
        effect: mean difference in standard deviations of the differences.
        num_pairs: pairs, at least two.
        alpha: size of the test.
    """
    freedom, shift = num_pairs - 1, effect * math.sqrt(num_pairs)
    critical = float(stats.t.isf(alpha / 2, freedom))
    above = float(stats.nct.sf(critical, freedom, shift))
    below = float(stats.nct.cdf(-critical, freedom, shift))
    # Far out scipy's lower tail is no number; there it is zero.
    return above + (below if math.isfinite(below) else 0.0)


def smallest_detectable(
    num_pairs: int, num_contrasts: int = 1, *, alpha: float = ALPHA, power: float = POWER
) -> float | None:
    """Return the effect that a paired t test finds with the given power.

    Args:
        num_pairs: paired seeds.
        num_contrasts: Holm's first step tests at alpha / contrasts.
        alpha: size of the whole family of tests.
        power: probability of finding the effect.

    Returns:
        mean difference in standard deviations of the differences, None with fewer than two
        pairs: one pair has no spread.
    """
    if num_pairs < 2:
        return None
    size = alpha / num_contrasts

    def lacking(effect: float) -> float:
        return power_of_paired_t(effect, num_pairs, alpha=size) - power

    high = 1.0
    while lacking(high) < 0:
        high *= 2
        if high > _LARGEST_EFFECT:
            return None
    return float(optimize.brentq(lacking, 0.0, high, xtol=1e-6))


def pilot_of(results: Mapping[str, object], source: str) -> Pilot | None:
    """Return the spread over seeds that a run's results show, paired against its baseline.

    Args:
        results: what `loratlas.analysis.summary.results` returns.
        source: what to call the run.

    Returns:
        None where no contrast of the run has two seeds.
    """
    differences = _differences(results)
    pairs = [(len(each), stats.tvar(each)) for each in differences if len(each) > 1]
    freedom = sum(count - 1 for count, _ in pairs)
    if not freedom:
        return None
    variance = sum((count - 1) * float(spread) for count, spread in pairs) / freedom
    return Pilot(
        source=source,
        deviation=math.sqrt(variance),
        num_differences=sum(count for count, _ in pairs),
    )


def _differences(results: Mapping[str, object]) -> list[Sequence[float]]:
    placements, contrasts = results["placements"], results["contrasts"]
    assert isinstance(placements, Mapping)
    assert isinstance(contrasts, Sequence)
    found: list[Sequence[float]] = []
    for contrast in contrasts:
        if contrast["baseline"] is None:
            continue
        ours = placements[contrast["placement"]]["losses"]
        theirs = placements[contrast["baseline"]]["losses"]
        found.append([ours[seed] - theirs[seed] for seed in ours if seed in theirs])
    return found


def sentences(power: Power) -> list[str]:
    """Return what the figures mean, in words, before anything is spent."""
    if not power.num_contrasts:
        return ["One placement: there is nothing to compare, so no test is planned."]
    seeds, contrasts = _count(power.num_seeds, "seed"), _count(power.num_contrasts, "contrast")
    said = [f"{seeds} and {contrasts}: {_reach(power)}"]
    if power.smallest_detectable is None:
        said.append("One seed has no spread: no difference can be told from chance.")
        return said
    said.append(
        f"A paired t test (two-sided, 5% over all contrasts by Holm) finds a difference of "
        f"{power.smallest_detectable:.2f} standard deviations over seeds with a power of 80%."
    )
    if power.pilot is not None and power.smallest_detectable_loss is not None:
        said.append(
            f"With the spread of {power.pilot.source} ({power.pilot.deviation:.4f} nats per token "
            f"over {power.pilot.num_differences} differences) that is a difference in loss of "
            f"{power.smallest_detectable_loss:.4f}."
        )
    return said


def _reach(power: Power) -> str:
    assert power.smallest_p is not None
    reach = (
        f"the exact sign-flip test cannot go below p = {power.smallest_p:.4g}"
        f"{' after correction' if power.num_contrasts > 1 else ''}"
    )
    if power.smallest_p <= ALPHA:
        return f"{reach}, which is below 0.05."
    return f"{reach}, so by that test no result can reach 0.05; {power.seeds_needed} seeds could."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def to_json(power: Power) -> dict[str, object]:
    """Return the figures as plain data, keys as the ``plan`` command documents them."""
    pilot = power.pilot
    return {
        "test": "paired, two-sided, Holm over contrasts",
        "alpha": ALPHA,
        "power": POWER,
        "num_seeds": power.num_seeds,
        "num_contrasts": power.num_contrasts,
        "smallest_p": power.smallest_p,
        "seeds_needed": power.seeds_needed,
        "smallest_detectable_deviations": power.smallest_detectable,
        "smallest_detectable_loss": power.smallest_detectable_loss,
        "pilot": None
        if pilot is None
        else {
            "run": pilot.source,
            "deviation": pilot.deviation,
            "num_differences": pilot.num_differences,
        },
        "says": sentences(power),
    }
