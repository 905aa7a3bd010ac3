"""What came out of a run: the figures behind the table, as plain data.

Only trials at the chosen learning rate are read. A trial that diverged or failed is counted
beside the mean of the others, never left out silently.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loratlas.analysis.intervals import mean_interval
from loratlas.analysis.measured import Measured
from loratlas.analysis.quality import base_quality, finite, mean, quality
from loratlas.analysis.resources import resources
from loratlas.cost.parameters import (
    percent_saved_against_baseline,
    percent_saved_against_full,
    trainable_percent,
)
from loratlas.measure.scores import SplitScore, perplexity
from loratlas.study.records import BASE, PlacementRecord, TrialRecord
from loratlas.study.store import Store
from loratlas.train.outcome import Probe

SPLIT = "test"
INTERVAL_OVER = "new seeds, these rows"


@dataclass(frozen=True, kw_only=True)
class _Arm:
    """A placement and its trials at the chosen rate."""

    placement: PlacementRecord
    learning_rate: float | None
    trials: Sequence[TrialRecord]
    scores: Mapping[int, SplitScore]
    is_language: bool
    probe: Probe | None

    @property
    def losses(self) -> dict[int, float]:
        """Corpus loss of the trials that are averaged, by seed."""
        return {seed: score.loss for seed, score in self.scores.items()}

    @property
    def digests(self) -> dict[int, str]:
        """The trials that are averaged, by seed."""
        return {trial.seed: trial.digest for trial in self.trials if trial.seed in self.scores}


def results(store: Store) -> dict[str, Any]:
    """Return the results of a run, keys as the ``results`` command documents them.

    What is not known (yet) is None; no figure is NaN or infinite.
    """
    arms = _arms(store)
    baseline = _baseline(store, arms)
    base_parameters = store.meta("base_parameters")
    steps = store.meta("steps_per_trial")
    measured = Measured(store=store, digests=store.meta("measures") or {})
    return {
        "study": store.meta("name"),
        "split": SPLIT,
        "base": base_quality(store.scores(BASE).get(SPLIT)) | measured.of_base(),
        "placements": {
            arm.placement.name: _placement(arm, baseline, base_parameters, steps)
            | measured.of_trials(arm.digests)
            for arm in arms
        },
        "contrasts": [_contrast(arm, baseline) for arm in arms if arm is not baseline],
        "interval_over": INTERVAL_OVER,
        "num_trials": store.meta("num_trials"),
        "environment": store.meta("environment"),
    }


def _arms(store: Store) -> list[_Arm]:
    chosen = store.meta("chosen") or {}
    probes = store.probes()
    trials = list(store.trials().values())
    return [
        _arm(store, placement, trials, chosen, probes.get(placement.digest))
        for placement in store.placements()
    ]


def _arm(
    store: Store,
    placement: PlacementRecord,
    trials: Sequence[TrialRecord],
    chosen: Mapping[str, float | None],
    probe: Probe | None,
) -> _Arm:
    rate = chosen.get(placement.name)
    own = [t for t in trials if t.placement_digest == placement.digest]
    # Where no rate is eligible, every trial is counted and none is averaged.
    none_eligible = rate is None and placement.name in chosen
    own = sorted(
        (t for t in own if none_eligible or t.learning_rate == rate), key=lambda trial: trial.seed
    )
    ended = () if none_eligible else [trial for trial in own if trial.status == "done"]
    return _Arm(
        placement=placement,
        learning_rate=rate,
        trials=own,
        scores={trial.seed: store.scores(trial.digest)[SPLIT] for trial in ended},
        is_language=store.meta("task") != "classification",
        probe=probe,
    )


def _baseline(store: Store, arms: Sequence[_Arm]) -> _Arm | None:
    study = store.meta("study") or {}
    return next((arm for arm in arms if arm.placement.name == study.get("baseline")), None)


def _placement(
    arm: _Arm, baseline: _Arm | None, base_parameters: int | None, steps: int | None
) -> dict[str, Any]:
    placement, losses = arm.placement, list(arm.losses.values())
    loss = mean(losses)
    count = placement.trainable_parameters
    against = None if baseline is None else baseline.placement.trainable_parameters
    return {
        "rule": placement.rule,
        "num_sites": len(placement.adapters),
        "ranks": sorted({adapter["rank"] for adapter in placement.adapters}),
        "trainable_parameters": count,
        "percent_of_base_and_adapters": (
            None if base_parameters is None else trainable_percent(count, base_parameters)
        ),
        "percent_saved_against_full_fine_tuning": (
            None if base_parameters is None else percent_saved_against_full(count, base_parameters)
        ),
        "percent_saved_against_baseline": (
            None if against is None else percent_saved_against_baseline(count, against)
        ),
        "matched_to": placement.matched_to,
        "families": placement.families,
        "learning_rate": arm.learning_rate,
        "split": SPLIT,
        "loss": loss,
        "perplexity": finite(perplexity(loss)) if arm.is_language and loss is not None else None,
        "loss_interval": mean_interval(losses),
        **quality(list(arm.scores.values())),
        "losses": {str(seed): value for seed, value in arm.losses.items()},
        **_cost(arm.probe, steps),
        "resources": resources(placement, arm.probe, arm.trials),
        "num_trials": len(arm.trials),
        "num_failed": sum(trial.status != "done" for trial in arm.trials),
        "warnings": placement.warnings,
    }


def _cost(probe: Probe | None, steps: int | None) -> dict[str, Any]:
    """Return what a placement costs alone; `seconds` is for the steps of one trial."""
    if probe is None:
        return {
            "seconds": None,
            "seconds_per_step": None,
            "tokens_per_second": None,
            "peak_memory_bytes": None,
        }
    return {
        "seconds": None if steps is None else probe.seconds_per_step * steps,
        "seconds_per_step": probe.seconds_per_step,
        "tokens_per_second": probe.tokens_per_second,
        "peak_memory_bytes": probe.peak_memory_bytes,
    }


def _contrast(arm: _Arm, baseline: _Arm | None) -> dict[str, Any]:
    """Return the difference of two placements over the seeds that both have, paired.

    `p_adjusted` and `verdict` are None: this version draws no conclusion yet.
    """
    both = [] if baseline is None else [seed for seed in arm.losses if seed in baseline.losses]
    differences = [] if baseline is None else [arm.losses[s] - baseline.losses[s] for s in both]
    return {
        "placement": arm.placement.name,
        "baseline": None if baseline is None else baseline.placement.name,
        "difference": mean(differences),
        "interval": mean_interval(differences),
        "num_seeds": len(differences),
        "p_adjusted": None,
        "verdict": None,
    }
