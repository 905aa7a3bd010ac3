"""How did the placements of a run move while they were trained, and did its seeds agree?"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loratlas.allocate.agreement import rank_agreement
from loratlas.analysis.arms import ended_trials
from loratlas.study.records import PlacementRecord, TrialRecord
from loratlas.study.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Moved:
    """How one placement moved, over the trials at its chosen rate that came to their end.

    Attributes:
        record: the placement.
        seeds: of the trials.
        paths: its sites, in the order of the model.
        steps: optimiser steps after which something changed in some trial, from 0 on.
        ranks: columns that counted from each of these steps on, shape (seeds, sites, steps).
        parameters: live adapter parameters likewise, shape (seeds, steps).
        num_decisions: decisions of each trial that changed something.
        agreement: mean Kendall's τ-b of the final ranks over pairs of seeds; None with fewer than
            two seeds, or where one of them has the same rank everywhere.
    """

    record: PlacementRecord
    seeds: tuple[int, ...]
    paths: tuple[str, ...]
    steps: tuple[int, ...]
    ranks: NDArray[np.int64]
    parameters: NDArray[np.int64]
    num_decisions: tuple[int, ...]
    agreement: float | None

    @property
    def mean_ranks(self) -> NDArray[np.float64]:
        """Ranks averaged over seeds, shape (sites, steps)."""
        mean: NDArray[np.float64] = self.ranks.mean(axis=0)
        return mean


def is_moving(record: PlacementRecord) -> bool:
    """Whether a policy moves a placement while it is trained."""
    return record.learned is not None and record.learned["kind"] == "dynamic"


def moved(store: Store) -> list[Moved]:
    """Return the placements of a run that moved, in the order of its study."""
    trials = ended_trials(store)
    found = []
    for record in store.placements():
        own = [trial for trial in trials[record.name] if trial.trajectory is not None]
        if is_moving(record) and own:
            found.append(_moved(record, sorted(own, key=lambda trial: trial.seed)))
    return found


def _moved(record: PlacementRecord, trials: Sequence[TrialRecord]) -> Moved:
    told: list[dict[str, Any]] = [trial.trajectory or {} for trial in trials]
    paths = tuple(adapter["path"] for adapter in record.adapters)
    steps = tuple(sorted({step for each in told for step in each["steps"]}))
    at = [np.searchsorted(each["steps"], steps, side="right") - 1 for each in told]
    ranks = np.array(
        [
            [np.take(each["ranks"][path], places) for path in paths]
            for each, places in zip(told, at, strict=True)
        ]
    )
    parameters = [
        np.take(each["parameters"], places) for each, places in zip(told, at, strict=True)
    ]
    return Moved(
        record=record,
        seeds=tuple(trial.seed for trial in trials),
        paths=paths,
        steps=steps,
        ranks=ranks,
        parameters=np.array(parameters),
        num_decisions=tuple(len({made["step"] for made in each["decisions"]}) for each in told),
        agreement=_agreement(ranks[:, :, -1]),
    )


def _agreement(final: NDArray[np.int64]) -> float | None:
    """Return the mean rank agreement over pairs of seeds; ranks are (seeds, sites)."""
    pairs = [rank_agreement(a, b) for a, b in combinations(final.astype(np.float64), 2)]
    known = [tau for tau in pairs if tau is not None]
    return float(np.mean(known)) if pairs and len(known) == len(pairs) else None
