"""What was scored in a run, as arrays: the ground that every comparison stands on.

Only trials at the chosen learning rate that ended are here, and only rows of the test split.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from loratlas.analysis.components import Counts, Floats
from loratlas.analysis.contrasts import Arm
from loratlas.measure.scores import SplitScore
from loratlas.study.records import BASE, TrialRecord
from loratlas.study.store import Store

SPLIT = "test"


@dataclass(frozen=True, kw_only=True, slots=True)
class Arms:
    """The placements of a run and what was scored.

    Attributes:
        scores: scores of each placement's ended trials, by name and seed.
        by_name: placements in the order of the study; one without an ended trial has an arm of
            shape (0, examples).
        baseline: name of the placement that the others are held against; None where the run
            does not know it.
        base_nll: nats that the untuned base gives each example, shape (examples,); None where
            it was not scored.
        num_tokens: scored tokens, the same for all, shape (examples,).
    """

    scores: Mapping[str, Mapping[int, SplitScore]]
    by_name: Mapping[str, Arm]
    baseline: str | None
    base_nll: Floats | None
    num_tokens: Counts

    @property
    def baseline_arm(self) -> Arm | None:
        """The baseline, None where there is none or no trial of it ended."""
        arm = None if self.baseline is None else self.by_name.get(self.baseline)
        return None if arm is None or not arm.seeds else arm

    @property
    def others(self) -> list[Arm]:
        """Every placement but the baseline."""
        return [arm for name, arm in self.by_name.items() if name != self.baseline]


def arms_of(store: Store) -> Arms:
    """Return what was scored of each placement at its chosen rate."""
    scores = {name: _scores(store, trials) for name, trials in ended_trials(store).items()}
    base = store.scores(BASE).get(SPLIT)
    every = [score for group in scores.values() for score in group.values()]
    known = base if base is not None else next(iter(every), None)
    num_tokens = np.zeros(0, dtype=np.int64) if known is None else known.num_tokens
    study = store.meta("study") or {}
    return Arms(
        scores=scores,
        by_name={name: _arm(name, group, len(num_tokens)) for name, group in scores.items()},
        baseline=study.get("baseline") if study.get("baseline") in scores else None,
        base_nll=None if base is None else base.nll,
        num_tokens=num_tokens,
    )


def trials_at_chosen_rate(store: Store) -> dict[str, list[TrialRecord]]:
    """Return the trials of each placement that its figures rest on, by seed in ascending order.

    Where every rate of a placement is ruled out, all its trials are returned, so that they can
    be counted as failed.
    """
    chosen = store.meta("chosen") or {}
    trials = list(store.trials().values())
    found = {}
    for placement in store.placements():
        own = [trial for trial in trials if trial.placement_digest == placement.digest]
        rate = chosen.get(placement.name)
        if rate is not None or placement.name not in chosen:
            own = [trial for trial in own if trial.learning_rate == rate]
        found[placement.name] = sorted(own, key=lambda trial: trial.seed)
    return found


def ended_trials(store: Store) -> dict[str, list[TrialRecord]]:
    """Return the trials at the chosen rate that ended, by placement; none where none is chosen."""
    chosen = store.meta("chosen") or {}
    return {
        name: [trial for trial in trials if trial.status == "done" and chosen.get(name) is not None]
        for name, trials in trials_at_chosen_rate(store).items()
    }


def _scores(store: Store, trials: list[TrialRecord]) -> dict[int, SplitScore]:
    """Return scores by seed; a trial that was imported may have none."""
    found = {trial.seed: store.scores(trial.digest).get(SPLIT) for trial in trials}
    return {seed: score for seed, score in found.items() if score is not None}


def _arm(name: str, scores: Mapping[int, SplitScore], num_examples: int) -> Arm:
    nll = [score.nll for score in scores.values()]
    return Arm(
        name=name,
        seeds=tuple(scores),
        nll=np.stack(nll) if nll else np.zeros((0, num_examples)),
    )
