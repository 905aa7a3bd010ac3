"""How a stored trial becomes what trackers are told of it."""

import math
from dataclasses import asdict
from typing import Any

from loratlas.anatomy.sites import digest_of
from loratlas.study.records import TrialRecord
from loratlas.study.store import Store
from loratlas.study.tracking.tracked import TrackedTrial

_OF_A_SPLIT = ("loss", "perplexity", "bits_per_byte", "accuracy", "macro_f1")


def tracked_trial(
    store: Store, record: TrialRecord, *, study: str, model: str, run: str
) -> TrackedTrial:
    """Return what trackers are told of a stored trial.

    Args:
        store: where the trial is kept.
        record: the trial.
        study: name of the study.
        model: the base model, as the study names it.
        run: what tells this run folder from every other.
    """
    same = [p for p in store.placements() if p.digest == record.placement_digest]
    placement = same[0]
    return TrackedTrial(
        run_id=digest_of([run, record.digest, record.attempts])[:16],
        digest=record.digest,
        attempt=record.attempts,
        study=study,
        model=model,
        placement=placement.name,
        same_as=[other.name for other in same[1:]],
        rule=placement.rule,
        trainable_parameters=record.ended_parameters or placement.trainable_parameters,
        learning_rate=record.learning_rate,
        seed=record.seed,
        status=record.status,
        error=record.error,
        losses=record.losses,
        figures=_figures(store, record),
    )


def _figures(store: Store, record: TrialRecord) -> dict[str, float]:
    found: dict[str, Any] = {"seconds": record.seconds}
    for split, score in store.scores(record.digest).items():
        found |= {f"{split}/{name}": getattr(score, name) for name in _OF_A_SPLIT}
    for measure, taken in store.measurements(record.digest).items():
        found |= {f"{measure}/{name}": value for name, value in taken.metrics.items()}
    probe = store.probes().get(record.placement_digest)
    if probe is not None:
        found |= {f"probe/{name}": value for name, value in asdict(probe).items()}
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }
