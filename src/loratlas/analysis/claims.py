"""Does what was claimed before the run hold?

"At least 95% of full" says that a placement keeps 95% of full's gain over the untuned base, which
is that it is not worse by 5% of it or more: one one-sided test, at 5%. Its opposite is tested too,
so that a claim can be contradicted and not merely fail. Each kind is corrected by Holm over the
claims of a study; a study that makes one claim has nothing to correct.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from loratlas.analysis.components import Counts, Floats
from loratlas.analysis.contrasts import Arm
from loratlas.analysis.margins import Margin, margin
from loratlas.analysis.multiplicity import holm
from loratlas.analysis.p_values import p_in_words
from loratlas.analysis.power import ALPHA
from loratlas.analysis.retained import Retained, retained
from loratlas.analysis.verdicts import general
from loratlas.study.hypothesis import Hypothesis

Outcome = Literal["supported", "contradicted", "cannot tell"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What the trials say of one claim, before other claims are thought of.

    Attributes:
        placement: what the claim is about.
        hypothesis: the claim.
        margin: the tests behind it.
        retained: share of the reference's gain that is kept; None where there is no gain.
        parameters: its trainable parameters as a share of the reference's, None where unknown.
    """

    placement: str
    hypothesis: Hypothesis
    margin: Margin
    retained: Retained | None
    parameters: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """How one claim came out.

    Attributes:
        evidence: its tests, uncorrected.
        p_supported: of "it keeps less than claimed, or just as much", adjusted over claims.
        p_contradicted: of "it keeps what is claimed or more", adjusted over claims.
        outcome: supported, contradicted, or cannot tell.
        says: the outcome and its grounds, in sentences.
    """

    evidence: Evidence
    p_supported: float | None
    p_contradicted: float | None
    outcome: Outcome
    says: tuple[str, ...]


def evidence(
    hypothesis: Hypothesis,
    ours: Arm,
    theirs: Arm,
    base_nll: Floats | None,
    num_tokens: Counts,
    *,
    parameters: float | None = None,
    alpha: float = ALPHA,
    seed: int = 0,
) -> Evidence:
    """Test one claim.

    Args:
        hypothesis: the claim.
        ours: the placement it is about.
        theirs: the placement it names.
        base_nll: nats that the untuned base gives each example, shape (examples,).
        num_tokens: scored tokens, shape (examples,).
        parameters: trainable parameters of ours as a share of theirs.
        alpha: level of the gain's test; one less the confidence of the share kept.
        seed: of what is drawn at random.
    """
    lost = 1 - hypothesis.share
    found = margin(ours, theirs, base_nll, num_tokens, lost, alpha=alpha, seed=seed)
    kept = None
    if base_nll is not None:
        kept = retained(ours, theirs, base_nll, num_tokens, found, alpha=alpha)
    return Evidence(
        placement=ours.name,
        hypothesis=hypothesis,
        margin=found,
        retained=kept,
        parameters=parameters,
    )


def settle(found: Sequence[Evidence], *, alpha: float = ALPHA) -> list[Claim]:
    """Decide the claims of a study together, with Holm's correction."""
    tests = [each.margin.above for each in found]
    supported = holm([test.p_less if test and general(test) else None for test in tests])
    contradicted = holm([test.p_greater if test and general(test) else None for test in tests])
    return [
        _claim(each, yes, no, alpha)
        for each, yes, no in zip(found, supported, contradicted, strict=True)
    ]


def _claim(found: Evidence, yes: float | None, no: float | None, alpha: float) -> Claim:
    allowed, has = found.hypothesis.parameters, found.parameters
    outcome: Outcome = "cannot tell"
    if (no is not None and no <= alpha) or _too_many(found):
        outcome = "contradicted"
    elif yes is not None and yes <= alpha and (allowed is None or has is not None):
        outcome = "supported"
    return Claim(
        evidence=found,
        p_supported=yes,
        p_contradicted=no,
        outcome=outcome,
        says=tuple(_sentences(found, outcome, no if outcome == "contradicted" else yes)),
    )


def _too_many(found: Evidence) -> bool:
    allowed, has = found.hypothesis.parameters, found.parameters
    return allowed is not None and has is not None and has > allowed


def _sentences(found: Evidence, outcome: Outcome, p: float | None) -> Iterator[str]:
    said: dict[Outcome, str] = {
        "supported": "is supported",
        "contradicted": "is contradicted",
        "cannot tell": "can be neither supported nor contradicted",
    }
    tested = "" if p is None else f" (one-sided {p_in_words(p)})"
    yield f"{found.placement}: {str(found.hypothesis)!r} {said[outcome]}{tested}."
    kept = found.retained
    if kept is not None:
        bound = "" if kept.at_least is None else f", at least {kept.at_least * 100:.4g}%"
        reference = found.hypothesis.reference
        yield f"It keeps {kept.share * 100:.4g}% of {reference}'s gain{bound}."
    allowed = found.hypothesis.parameters
    if found.parameters is not None and allowed is not None:
        has = f"{found.parameters * 100:.4g}% of its parameters"
        yield f"It has {has}; {allowed * 100:.4g}% are allowed."
    elif allowed is not None:
        yield "Its parameters are not known, so that part of the claim is open."
    yield from found.margin.says
