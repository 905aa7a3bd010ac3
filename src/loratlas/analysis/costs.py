"""What does each placement of a run cost, and how did its trials go?

Parameters are exact. Memory and time are those of the placement's probe, which trains it alone;
the probe's steps say how far its time varies, and one peak says nothing of how far memory does. A
probe trains what stands still, so that memory and time of a placement that moves are not known.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from loratlas.analysis.arms import trials_at_chosen_rate
from loratlas.analysis.held import held_by
from loratlas.analysis.moved import is_moving
from loratlas.cost.parameters import adapter_bytes
from loratlas.study.records import PlacementRecord, TrialRecord
from loratlas.study.store import Store
from loratlas.train.outcome import Probe

# Costs that differ by less count as equal: ranks are whole numbers, so that placements matched
# in parameters differ by about 2%, and memory and time are measured.
EQUAL_COST = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What one placement costs.

    Attributes:
        parameters: trainable parameters, exact; the mean over seeds where they moved.
        adapter_bytes: of a saved adapter on disk; 4 bytes a parameter where none was saved.
        memory_bytes: most memory of a training step above the loaded model; None where unknown.
        seconds: of the optimiser steps of one trial, alone on its machine, and of the scoring that
            chose its placement; None where unknown.
        step_seconds: of each timed step of the probe.
        num_trials: trials at the chosen rate that came to an end, well or badly.
        num_failed: those that diverged or failed.
    """

    parameters: int
    adapter_bytes: int
    memory_bytes: int | None = None
    seconds: float | None = None
    step_seconds: tuple[float, ...] = ()
    num_trials: int = 0
    num_failed: int = 0


def costs_of(store: Store) -> dict[str, Cost]:
    """Return what each placement of a run costs, by name in the order of the study."""
    probes, steps = store.probes(), store.meta("steps_per_trial")
    trials = trials_at_chosen_rate(store)
    counts = {name: each.parameters for name, each in held_by(store, trials).items()}
    return {
        each.name: _cost(each, counts[each.name], probe_of(each, probes), trials[each.name], steps)
        for each in store.placements()
    }


def probe_of(placement: PlacementRecord, probes: Mapping[str, Probe]) -> Probe | None:
    """Return the probe that says what a placement costs, None where there is none.

    Runs of earlier versions probed the start of a placement that moves, as if it stood still.

    Args:
        placement: the placement.
        probes: by the digest of their placement.
    """
    return None if is_moving(placement) else probes.get(placement.digest)


def cheapest(names: Collection[str], costs: Mapping[str, Cost]) -> list[str]:
    """Return those of the placements that cost least.

    Fewest parameters; of those with at most 5% more than the fewest, least memory; of those
    with at most 5% more than that, least time. A cost that is unknown is above any that is
    known.

    Returns:
        one name or several, which cost the same up to 5%, in the order given.
    """
    left = list(names)
    for cost in (_parameters, _memory, _seconds):
        least = min((cost(costs[name]) for name in left), default=math.inf)
        left = [name for name in left if cost(costs[name]) <= least * (1 + EQUAL_COST)]
    return left


def trial_seconds(probe: Probe | None, steps: int | None, selection: float | None) -> float | None:
    """Return the seconds of one trial's steps, alone, and of the scoring that chose its placement.

    Args:
        probe: of its placement.
        steps: of a trial.
        selection: seconds of that scoring, if there was any.
    """
    if probe is None or steps is None:
        return None
    return probe.seconds_per_step * steps + (selection or 0.0)


def _parameters(cost: Cost) -> float:
    return cost.parameters


def _memory(cost: Cost) -> float:
    return math.inf if cost.memory_bytes is None else cost.memory_bytes


def _seconds(cost: Cost) -> float:
    return math.inf if cost.seconds is None else cost.seconds


def _cost(
    placement: PlacementRecord,
    count: int,
    probe: Probe | None,
    trials: Collection[TrialRecord],
    steps: int | None,
) -> Cost:
    sizes = [trial.adapter_bytes for trial in trials if trial.adapter_bytes is not None]
    return Cost(
        parameters=count,
        adapter_bytes=max(sizes, default=adapter_bytes(count)),
        memory_bytes=None if probe is None else probe.peak_memory_bytes,
        seconds=trial_seconds(probe, steps, placement.selection_seconds),
        step_seconds=() if probe is None else tuple(probe.step_seconds),
        num_trials=len(trials),
        num_failed=sum(trial.status != "done" for trial in trials),
    )
