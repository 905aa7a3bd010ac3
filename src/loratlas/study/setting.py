"""What is kept of a study beside its trials: what their figures are to be read with."""

from typing import Any

from loratlas.study.records import PlacementRecord
from loratlas.study.request import ASKED_OF_SCORES, Request, as_stored
from loratlas.study.resolve import ResolvedPlacement, families
from loratlas.study.spec import StudySpec
from loratlas.study.store import Store
from loratlas.study.trial_runner import Bench
from loratlas.study.trials import num_trials
from loratlas.train.reference import num_steps


def keep_setting(store: Store, request: Request, bench: Bench) -> None:
    """Keep the setting of a run that begins or goes on."""
    study, data = request.study, request.data
    store.set_placements([_placement_record(placement) for placement in request.placements])
    if _asks_otherwise(store, study):
        store.set_meta("stated_late", True)
    kept = {
        "study": as_stored(study),
        "root": str(study.root),
        "name": study.name,
        "num_trials": num_trials(study, request.placements),
        "steps_per_trial": num_steps(study.training, len(bench.train)),
        "anatomy": request.anatomy.to_json(),
        "base_parameters": request.base.num_parameters,
        "task": data.task,
        "classes": list(data.classes),
        "measures": {each.name: each.digest for each in request.measures},
        "finished": False,
        "rates_chosen": False,
        "data_report": list(data.report),
        "rows": {
            "train": len(data.train.rows),
            "validation": len(data.validation.rows),
            "test": len(data.test.rows),
        },
    }
    for key, value in kept.items():
        store.set_meta(key, value)


def _asks_otherwise(store: Store, study: StudySpec) -> bool:
    """Whether margin or hypotheses were changed after trials had run: no claim made before."""
    before, now = store.meta("study"), as_stored(study)
    if before is None or not store.trials():
        return False
    return any(before.get(key) != now[key] for key in ASKED_OF_SCORES)


def _placement_record(resolved: ResolvedPlacement) -> PlacementRecord:
    placement = resolved.placement
    return PlacementRecord(
        name=resolved.name,
        digest=resolved.digest,
        rule=resolved.said,
        trainable_parameters=placement.trainable_parameters,
        matched_to=resolved.matched_to,
        families=families(placement),
        adapters=placement.to_json()["placement"],
        warnings=[{"code": lint.code, "message": lint.message} for lint in resolved.lints],
        learned=_learned(resolved),
    )


def _learned(resolved: ResolvedPlacement) -> dict[str, Any] | None:
    known = resolved.moving or resolved.learned
    return None if known is None else known.to_json()
