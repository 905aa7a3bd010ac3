"""Is a difference too small to matter?

What matters is a share m of what the baseline gained over the untuned base, so the margin is
itself uncertain. It is not estimated first and then taken as known: per seed and example

    D = L_placement - L_baseline -/+ m (L_base - L_baseline)

is one combination of scores, and the tests ask for its sign. Not inferior: D with the minus is
below zero, one-sided. Equivalent: that, and D with the plus is above zero (two one-sided tests;
D. J. Schuirmann 1987). Where the baseline has no gain that can be told from none, a share of it
is no margin, and nothing is tested.
"""

from dataclasses import dataclass

from loratlas.analysis.components import Counts, Floats
from loratlas.analysis.contrasts import Arm, Pair, combined, pair
from loratlas.analysis.estimates import Estimate, estimate
from loratlas.analysis.p_values import p_in_words
from loratlas.analysis.power import ALPHA


@dataclass(frozen=True, kw_only=True, slots=True)
class Margin:
    """Whether a placement lies within a share of the baseline's gain; losses in nats per token.

    Each estimate captures what its scope says: new seeds and new examples, or one seed's
    examples.

    Attributes:
        share: of the gain that counts as not mattering.
        gain: loss of the untuned base less the baseline's, on the paired seeds; None without
            scores of the base.
        width: share times gain; None where there is no margin.
        above: how far the placement lies above the upper end; below zero, it is inside.
        below: how far it lies above the lower end; above zero, it is inside.
        says: why there is no margin.
    """

    share: float
    gain: Estimate | None = None
    width: float | None = None
    above: Estimate | None = None
    below: Estimate | None = None
    says: tuple[str, ...] = ()

    @property
    def p_not_inferior(self) -> float | None:
        """One-sided p of "the placement is worse by the margin or more"."""
        return None if self.above is None else self.above.p_less

    @property
    def p_equivalent(self) -> float | None:
        """P of "the placement is worse or better by the margin or more": the larger of two."""
        if self.above is None or self.below is None:
            return None
        if self.above.p_less is None or self.below.p_greater is None:
            return None
        return max(self.above.p_less, self.below.p_greater)


def margin(
    ours: Arm,
    theirs: Arm,
    base_nll: Floats | None,
    num_tokens: Counts,
    share: float,
    *,
    alpha: float = ALPHA,
    seed: int = 0,
) -> Margin:
    """Test whether one placement lies within a share of another's gain.

    Args:
        ours: the placement.
        theirs: the baseline, or another placement, whose gain is the measure.
        base_nll: nats that the untuned base gives each example, shape (examples,); None where
            it was not scored.
        num_tokens: scored tokens, shape (examples,).
        share: of the gain, 0 or above and below 1; 0 asks whether the placement is better.
        alpha: level at which the gain must differ from none, one-sided.
        seed: of the bootstrap of one seed.
    """
    if base_nll is None:
        said = "The untuned base was not scored: there is no gain to measure a margin by."
        return Margin(share=share, says=(said,))
    both = pair(ours, theirs)
    gain = estimate(combined((1, base_nll), (-1, both.theirs)), num_tokens, seed=seed)
    said_of_gain = _no_margin(gain, theirs.name, alpha)
    if said_of_gain:
        return Margin(share=share, gain=gain, says=said_of_gain)
    assert gain.value is not None
    above, below = (
        estimate(beyond(both, base_nll, end), num_tokens, seed=seed) for end in (share, -share)
    )
    return Margin(
        share=share, gain=gain, width=share * gain.value, above=above, below=below, says=above.says
    )


def beyond(both: Pair, base_nll: Floats, share: float) -> Floats:
    """Return L_p - L_b - share (L_0 - L_b) of every seed and example, nats, (seeds, examples)."""
    return combined((1, both.ours), (share - 1, both.theirs), (-share, base_nll))


def _no_margin(gain: Estimate, baseline: str, alpha: float) -> tuple[str, ...]:
    if gain.value is None or gain.p_greater is None:
        return (f"The gain of {baseline} over the untuned base cannot be judged.", *gain.says)
    if gain.p_greater > alpha:
        return (
            f"{baseline} has no gain over the untuned base that could be told from none "
            f"({gain.value:.4g} nats per token, one-sided {p_in_words(gain.p_greater)}): "
            f"a share of it is no margin.",
        )
    return ()
