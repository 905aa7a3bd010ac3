"""How much of the baseline's gain does a placement keep, at least?

The share kept, (L_base - L_placement) / (L_base - L_baseline), is a ratio of two uncertain losses.
Its lower bound is E. C. Fieller's (1954): the largest share that the one-sided test of
`loratlas.analysis.margins` does not reject. No ratio is given a standard error.
"""

from collections.abc import Callable
from dataclasses import dataclass

from scipy import optimize

from loratlas.analysis.components import Counts, Floats
from loratlas.analysis.contrasts import Arm, pair
from loratlas.analysis.estimates import estimate
from loratlas.analysis.margins import Margin, beyond
from loratlas.analysis.power import ALPHA

_FIRST_STEP = 2.0**-10
_MOST_DOUBLINGS = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Retained:
    """Share of the baseline's gain that a placement keeps: 1 is all of it.

    Attributes:
        share: best estimate.
        at_least: lower bound, one-sided, for new seeds and new examples; None with one seed,
            or where the gain is too uncertain for a bound.
    """

    share: float
    at_least: float | None


def retained(
    ours: Arm,
    theirs: Arm,
    base_nll: Floats,
    num_tokens: Counts,
    found: Margin,
    *,
    alpha: float = ALPHA,
) -> Retained | None:
    """Return the share of the gain that is kept.

    Args:
        ours: the placement.
        theirs: the placement whose gain is the measure.
        base_nll: nats that the untuned base gives each example, shape (examples,).
        num_tokens: scored tokens, shape (examples,).
        found: what `loratlas.analysis.margins.margin` said of these two.
        alpha: one less the confidence of the bound, one-sided.

    Returns:
        None where there is no margin, because a share of no gain means nothing.
    """
    if found.above is None or found.above.value is None or found.width is None:
        return None
    assert found.gain is not None
    assert found.gain.value is not None
    lost = found.share + found.above.value / found.gain.value
    if len(found.above.per_seed) < 2:
        return Retained(share=1 - lost, at_least=None)
    both = pair(ours, theirs)

    def excess(share: float) -> float:
        """Return by how much the p of losing this share or more exceeds alpha."""
        tried = estimate(beyond(both, base_nll, share), num_tokens)
        assert tried.value is not None
        # Without any spread the value itself decides.
        return (float(tried.value >= 0) if tried.p_less is None else tried.p_less) - alpha

    most = _first_rejected(excess, lost)
    if most is None:
        return Retained(share=1 - lost, at_least=None)
    bound = lost if excess(lost) <= 0 else float(optimize.brentq(excess, lost, most, xtol=1e-9))
    return Retained(share=1 - lost, at_least=1 - bound)


def _first_rejected(excess: Callable[[float], float], start: float) -> float | None:
    steps = (start + _FIRST_STEP * 2.0**k for k in range(_MOST_DOUBLINGS))
    return next((share for share in steps if excess(share) <= 0), None)
