"""Which trials a study asks for, and which learning rate its validation rows choose."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from loratlas.study.records import Status
from loratlas.study.resolve import ResolvedPlacement
from loratlas.study.spec import StudySpec
from loratlas.train.trial import TrialSpec

_LONGEST = 160
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One trial that the study asks for: a placement at a rate with a seed."""

    placement: ResolvedPlacement
    learning_rate: float
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Validated:
    """How a trial did on the rows that choose the rate.

    Attributes:
        learning_rate: the trial's rate.
        status: whether it ended.
        loss: corpus loss on the validation rows, None where it has none.
    """

    learning_rate: float
    status: Status
    loss: float | None


def swept_seeds(study: StudySpec) -> tuple[int, ...]:
    """Return the seeds that run at every learning rate."""
    if len(study.training.learning_rate) == 1 or study.sweep_seeds is None:
        return study.seeds
    return study.seeds[: study.sweep_seeds]


def sweep(study: StudySpec, placements: Sequence[ResolvedPlacement]) -> list[Cell]:
    """Return the trials that run whatever comes out of them, seed by seed."""
    return [
        Cell(placement=placement, learning_rate=rate, seed=seed)
        for seed, placement, rate in product(
            swept_seeds(study), placements, study.training.learning_rate
        )
    ]


def at_chosen_rate(
    study: StudySpec, placements: Sequence[ResolvedPlacement], chosen: Mapping[str, float | None]
) -> list[Cell]:
    """Return the trials of the other seeds; a placement without a rate has none."""
    rest = study.seeds[len(swept_seeds(study)) :]
    return [
        Cell(placement=placement, learning_rate=rate, seed=seed)
        for seed, placement in product(rest, placements)
        if (rate := chosen[placement.name]) is not None
    ]


def num_trials(study: StudySpec, placements: Sequence[ResolvedPlacement]) -> int:
    """Return how many trials a study asks for when every placement gets a rate.

    Placements that resolve to the same sites, ranks and scales share their trials.
    """
    swept = len(swept_seeds(study)) * len(study.training.learning_rate)
    distinct = len({placement.digest for placement in placements})
    return distinct * (swept + len(study.seeds) - len(swept_seeds(study)))


def choose_learning_rate(trials: Iterable[Validated]) -> float | None:
    """Return the rate with the lowest mean validation loss over the swept seeds.

    A rate with a trial that diverged or failed is not eligible: a mean over the seeds that
    survived would praise it for what it broke. Of equal rates the smaller is taken. With
    one rate there is nothing to choose, and no loss is needed.

    Returns:
        the chosen rate, None where no rate is eligible.
    """
    by_rate: dict[float, list[Validated]] = {}
    for trial in trials:
        by_rate.setdefault(trial.learning_rate, []).append(trial)
    eligible = [
        rate for rate, group in by_rate.items() if all(trial.status == "done" for trial in group)
    ]
    if len(by_rate) == 1:
        return eligible[0] if eligible else next(iter(by_rate))
    means = {
        rate: math.fsum(_required_loss(trial) for trial in by_rate[rate]) / len(by_rate[rate])
        for rate in eligible
    }
    return min(means, key=lambda rate: (means[rate], rate)) if means else None


def _required_loss(trial: Validated) -> float:
    assert trial.loss is not None, "a study with several rates has validation rows"
    return trial.loss


def trial_spec(study: StudySpec, cell: Cell, *, base: str, data: str) -> TrialSpec:
    """Return the specification that identifies a trial of a study."""
    return TrialSpec(
        base_digest=base,
        data_digest=data,
        placement_digest=cell.placement.digest,
        learning_rate=cell.learning_rate,
        seed=cell.seed,
        lora_dropout=study.lora.dropout,
        training=replace(study.training, learning_rate=()),
    )


def adapter_name(cell: Cell, spec: TrialSpec) -> str:
    """Return a folder name that a person can read and that no two trials share."""
    return (
        f"{_safe(cell.placement.name)}-lr{cell.learning_rate:g}-seed{cell.seed}-{spec.digest[:8]}"
    )


def _safe(name: str) -> str:
    """Return a name as it may stand in a file's: ASCII letters, digits, and ``._-`` in between."""
    safe = _UNSAFE.sub("_", name)[:_LONGEST]
    return safe if safe[0].isalnum() else f"placement{safe}"
