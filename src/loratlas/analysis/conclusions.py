"""What a run lets one conclude, as plain data: contrasts, claims made in advance, sweeps."""

from collections.abc import Mapping, Sequence
from typing import Any

from loratlas.analysis.arms import Arms
from loratlas.analysis.claims import Claim, Evidence, evidence, settle
from loratlas.analysis.quality import mean
from loratlas.analysis.sweeps import sweep
from loratlas.analysis.verdicts import MARGIN, Judgement, compare, in_words
from loratlas.study.hypothesis import parse_hypothesis
from loratlas.study.store import Store

VALIDATION = "validation"


def contrasts(arms: Arms, study: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return every placement held against the baseline, keys as ``results`` documents them.

    Differences are in nats per scored token; what their intervals capture stands beside each
    (`interval_over`): new seeds and new examples, or new examples for the one seed there is.

    Args:
        arms: what was scored.
        study: the study as it was stored; its `margin` is a share of the baseline's gain.
    """
    judged = compare(
        arms.others,
        arms.baseline_arm,
        arms.base_nll,
        arms.num_tokens,
        share=study.get("margin", MARGIN),
    )
    return [_contrast(each, arms.baseline) for each in judged]


def _contrast(judged: Judgement, baseline: str | None) -> dict[str, Any]:
    found, margin = judged.contrast.estimate, judged.margin
    flipped = judged.contrast.sign_flip
    return {
        "placement": judged.contrast.placement,
        "baseline": baseline,
        "difference": found.value,
        "interval": None if found.interval is None else list(found.interval),
        "interval_over": found.scope,
        "p_adjusted": judged.p_difference,
        "verdict": judged.verdict,
        "holds": list(judged.holds),
        "says": in_words(judged),
        "margin": {"share": margin.share, "width": margin.width},
        "p_equivalent": judged.p_equivalent,
        "p_not_inferior": judged.p_not_inferior,
        "sign_flip_p": None if flipped is None else flipped.p_value,
        "num_seeds": found.num_seeds,
        "num_examples": found.num_examples,
        "deviations": {
            "seeds": found.seed_deviation,
            "examples": found.example_deviation,
            "rest": found.rest_deviation,
        },
    }


def claims(
    arms: Arms,
    num_parameters: Mapping[str, int],
    hypotheses: Mapping[str, str],
    *,
    stated_late: bool,
) -> list[dict[str, Any]]:
    """Return how the claims of the study file came out.

    Args:
        arms: what was scored.
        num_parameters: adapter parameters of each placement, by name.
        hypotheses: the claims by the placement that they are about.
        stated_late: whether a claim was written or changed after trials had run.
    """
    found = [_evidence(arms, num_parameters, name, text) for name, text in hypotheses.items()]
    return [_claim(each, stated_late) for each in settle(found)]


def _evidence(arms: Arms, counts: Mapping[str, int], name: str, text: str) -> Evidence:
    hypothesis = parse_hypothesis(text, name, list(arms.by_name))
    return evidence(
        hypothesis,
        arms.by_name[name],
        arms.by_name[hypothesis.reference],
        arms.base_nll,
        arms.num_tokens,
        parameters=counts[name] / counts[hypothesis.reference],
    )


def _claim(found: Claim, stated_late: bool) -> dict[str, Any]:
    kept = found.evidence.retained
    late = ("It was stated, or changed, after trials had run.",) if stated_late else ()
    return {
        "placement": found.evidence.placement,
        "hypothesis": str(found.evidence.hypothesis),
        "outcome": found.outcome,
        "p_supported": found.p_supported,
        "p_contradicted": found.p_contradicted,
        "share_kept": None if kept is None else kept.share,
        "share_kept_at_least": None if kept is None else kept.at_least,
        "share_of_parameters": found.evidence.parameters,
        "says": " ".join((*found.says, *late)),
    }


def sweeps(store: Store, study: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return how the learning rate of each placement was chosen on validation rows.

    Losses are means over the seeds that ran at every rate; None where a trial did not end.
    """
    seeds = (study.get("seeds") or [])[: study.get("sweep_seeds")]
    trials = [trial for trial in store.trials().values() if trial.seed in seeds]
    chosen = store.meta("chosen") or {}
    found = {}
    for placement in store.placements():
        own = [trial for trial in trials if trial.placement_digest == placement.digest]
        losses: dict[float, list[float | None]] = {}
        for trial in sorted(own, key=lambda trial: trial.learning_rate):
            score = store.scores(trial.digest).get(VALIDATION) if trial.status == "done" else None
            losses.setdefault(trial.learning_rate, []).append(score.loss if score else None)
        found[placement.name] = _sweep(placement.name, losses, chosen.get(placement.name))
    return found


def _sweep(
    name: str, losses: Mapping[float, Sequence[float | None]], chosen: float | None
) -> dict[str, Any]:
    means = {rate: mean(each) for rate, each in losses.items()}
    # With one rate there is nothing to choose, and validation rows are not needed.
    judged = sweep(name, means) if len(means) > 1 else None
    return {
        "rates": [
            {"learning_rate": rate, "loss": means[rate], "num_seeds": len(each)}
            for rate, each in losses.items()
        ],
        "chosen": chosen,
        "at_edge": None if judged is None else judged.edge,
        "says": [] if judged is None else list(judged.says),
    }
