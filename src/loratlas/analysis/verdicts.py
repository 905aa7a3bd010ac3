"""Better, worse, equivalent, not inferior, or cannot tell?

Four questions are asked of every placement, each at 5% after Holm over the placements:

- *better*, *worse*: the difference of losses is not zero, two-sided.
- *equivalent*: it lies within the margin on both sides (two one-sided tests).
- *not inferior*: it lies below the upper end of the margin, one-sided.

Several can hold at once; `Judgement.holds` has all of them, and the verdict is the first of
equivalent, better, not inferior, worse. The margin is what the reader said does not matter, so a
difference that is surely there and surely smaller is called equivalent; its sentence says that it
is there. What holds for one seed alone is no verdict about a placement.

For one placement no two of the hypotheses that are rejected falsely can be true together (a
difference cannot be zero and at the margin), so that asking several questions of it costs nothing.
Over placements each question is a family of its own: a study of some placements without a
difference and some at the margin can err in both.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from loratlas.analysis.components import Counts, Floats
from loratlas.analysis.contrasts import Arm, Contrast, contrast
from loratlas.analysis.estimates import Estimate
from loratlas.analysis.margins import Margin, margin
from loratlas.analysis.multiplicity import holm
from loratlas.analysis.p_values import p_in_words
from loratlas.analysis.power import ALPHA

Verdict = Literal["better", "worse", "equivalent", "not inferior", "cannot tell"]
MARGIN = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """What can be said of a placement against its baseline.

    Attributes:
        contrast: the difference and its uncertainty, for this placement alone.
        margin: the tests against the margin, for this placement alone.
        p_difference: of "no difference", adjusted over the study's placements.
        p_equivalent: of "the margin or more, either way", adjusted.
        p_not_inferior: of "worse by the margin or more", adjusted.
        verdict: the first that holds, or "cannot tell".
        holds: everything that holds, the verdict first.
        says: seeds left out, and what cannot be said.
    """

    contrast: Contrast
    margin: Margin
    p_difference: float | None
    p_equivalent: float | None
    p_not_inferior: float | None
    verdict: Verdict
    holds: tuple[Verdict, ...]
    says: tuple[str, ...]


def compare(
    placements: Sequence[Arm],
    baseline: Arm | None,
    base_nll: Floats | None,
    num_tokens: Counts,
    *,
    share: float = MARGIN,
    alpha: float = ALPHA,
    seed: int = 0,
) -> list[Judgement]:
    """Hold the placements of a study against its baseline.

    Args:
        placements: all but the baseline.
        baseline: what they are held against; without one, nothing can be told, and it is said.
        base_nll: nats that the untuned base gives each example, shape (examples,); without it
            there is no margin.
        num_tokens: scored tokens, shape (examples,).
        share: the margin, as a share of the baseline's gain over the untuned base.
        alpha: level of each question over all placements; one less the confidence of intervals.
        seed: of what is drawn at random.

    Returns:
        one judgement a placement, in the order given.
    """
    if baseline is None:
        return judge([_alone(arm) for arm in placements], [Margin(share=share)] * len(placements))
    return judge(
        [
            contrast(arm, baseline, num_tokens, confidence=1 - alpha, seed=seed)
            for arm in placements
        ],
        [
            margin(arm, baseline, base_nll, num_tokens, share, alpha=alpha, seed=seed)
            for arm in placements
        ],
        alpha=alpha,
    )


def judge(
    contrasts: Sequence[Contrast], margins: Sequence[Margin], *, alpha: float = ALPHA
) -> list[Judgement]:
    """Turn the tests of a family of placements into verdicts, with Holm's correction."""
    difference = holm(
        [each.estimate.p_value if general(each.estimate) else None for each in contrasts]
    )
    within = [general(each.above) for each in margins]
    equivalent = holm(
        [each.p_equivalent if so else None for each, so in zip(margins, within, strict=True)]
    )
    not_inferior = holm(
        [each.p_not_inferior if so else None for each, so in zip(margins, within, strict=True)]
    )
    judged = zip(contrasts, margins, difference, equivalent, not_inferior, strict=True)
    return [_judgement(c, m, (d, e, n), alpha) for c, m, d, e, n in judged]


def general(found: Estimate | None) -> bool:
    """Return whether an estimate speaks of placements, and not of one seed's run."""
    return found is not None and found.scope == "new seeds and new examples"


def _judgement(
    found: Contrast, within: Margin, adjusted: tuple[float | None, ...], alpha: float
) -> Judgement:
    difference, equivalent, not_inferior = adjusted
    sure = [p is not None and p <= alpha for p in adjusted]
    value = found.estimate.value or 0.0
    # In the order in which they become the verdict.
    asked: list[tuple[Verdict, bool]] = [
        ("equivalent", sure[1]),
        ("better", sure[0] and value < 0),
        ("not inferior", sure[2]),
        ("worse", sure[0] and value > 0),
    ]
    holds = tuple(verdict for verdict, so in asked if so)
    return Judgement(
        contrast=found,
        margin=within,
        p_difference=difference,
        p_equivalent=equivalent,
        p_not_inferior=not_inferior,
        verdict=holds[0] if holds else "cannot tell",
        holds=holds,
        says=tuple(dict.fromkeys((*found.says, *within.says))),
    )


def _alone(arm: Arm) -> Contrast:
    return Contrast(
        placement=arm.name,
        baseline=None,
        seeds=(),
        estimate=Estimate(value=None, num_seeds=0, num_examples=0),
        sign_flip=None,
        says=("No baseline was scored: there is nothing to hold it against.",),
    )


def in_words(judgement: Judgement) -> str:
    """Return the verdict and its evidence as sentences."""
    return " ".join((*_sentences(judgement), *judgement.says))


def _sentences(judged: Judgement) -> Iterator[str]:
    ours, theirs = judged.contrast.placement, judged.contrast.baseline
    value, within = judged.contrast.estimate.value, judged.margin
    if value is None:
        yield f"{ours}: no difference can be given."
        return
    limit = f"{within.share * 100:.3g}% of {theirs}'s gain"
    said: dict[Verdict, str] = {
        "better": f"{ours} is better than {theirs}",
        "worse": f"{ours} is worse than {theirs}",
        "equivalent": f"{ours} and {theirs} are equivalent, within {limit}",
        "not inferior": f"{ours} is not inferior to {theirs}: not worse by {limit} or more",
        "cannot tell": f"Cannot tell {ours} from {theirs}",
    }
    yield f"{said[judged.verdict]} ({_evidence(judged)})."
    if judged.verdict in ("equivalent", "not inferior"):
        also = [word for word in judged.holds if word in ("better", "worse")]
        if also:
            yield f"It is {also[0]}, but by less than the margin."


def _evidence(judged: Judgement) -> str:
    found = judged.contrast.estimate
    said = [f"difference {found.value:+.4g} nats per token"]
    if found.interval is not None:
        said.append("interval {:+.4g} to {:+.4g}".format(*found.interval))
    p = {
        "equivalent": judged.p_equivalent,
        "not inferior": judged.p_not_inferior,
    }.get(judged.verdict, judged.p_difference)
    if p is not None:
        said.append(p_in_words(p))
    return ", ".join(said)
