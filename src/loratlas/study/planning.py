"""What a study asks for and costs, from the configuration of its model alone."""

from collections.abc import Sequence
from typing import Any

from loratlas.anatomy.sites import Anatomy
from loratlas.cost.parameters import (
    adapter_bytes,
    percent_saved_against_baseline,
    percent_saved_against_full,
    trainable_percent,
)
from loratlas.study.resolve import ResolvedPlacement, families
from loratlas.study.spec import StudySpec
from loratlas.study.trials import num_trials


def plan_study(
    study: StudySpec, anatomy: Anatomy, placements: Sequence[ResolvedPlacement]
) -> dict[str, Any]:
    """Return the plan of a study, keys as the ``plan`` command documents them.

    FLOPs, memory, time and power are None: this version does not predict them yet.
    """
    counts = {p.name: p.placement.trainable_parameters for p in placements}
    return {
        "study": study.name,
        "model": anatomy.model,
        "base_parameters": anatomy.num_parameters,
        "placements": {
            p.name: _cost(p, anatomy.num_parameters, counts[study.baseline]) for p in placements
        },
        "num_trials": num_trials(study),
        "power": None,
    }


def _cost(resolved: ResolvedPlacement, base_parameters: int, baseline: int) -> dict[str, Any]:
    placement = resolved.placement
    count = placement.trainable_parameters
    matched = resolved.matched_to
    return {
        "rule": str(resolved.rule),
        "num_sites": len(placement.adapters),
        "ranks": sorted({adapter.rank for adapter in placement.adapters}),
        "trainable_parameters": count,
        "matched_to": matched,
        "difference_to_match": None if matched is None else count - matched,
        "families": families(placement),
        "percent_of_base_and_adapters": trainable_percent(count, base_parameters),
        "percent_saved_against_full_fine_tuning": percent_saved_against_full(
            count, base_parameters
        ),
        "percent_saved_against_baseline": percent_saved_against_baseline(count, baseline),
        "adapter_bytes": adapter_bytes(count),
        "flops_per_step": None,
        "peak_memory_bytes": None,
        "seconds": None,
        "warnings": [{"code": lint.code, "message": lint.message} for lint in resolved.lints],
    }
