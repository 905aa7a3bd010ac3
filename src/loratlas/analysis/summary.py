"""What came out of a run: the figures behind the table, as plain data.

Only trials at the chosen learning rate are read. A trial that diverged or failed is counted
beside the mean of the others, never left out silently.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loratlas.analysis.arms import SPLIT, Arms, arms_of, trials_at_chosen_rate
from loratlas.analysis.components import Floats
from loratlas.analysis.conclusions import claims, contrasts, sweeps
from loratlas.analysis.costs import probe_of, trial_seconds
from loratlas.analysis.engines import engines
from loratlas.analysis.estimates import Estimate, estimate
from loratlas.analysis.held import Held, held_by
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


@dataclass(frozen=True, kw_only=True)
class _Arm:
    """A placement, its trials at the chosen rate, and what those that ended scored, by seed."""

    placement: PlacementRecord
    learning_rate: float | None
    trials: Sequence[TrialRecord]
    scores: Mapping[int, SplitScore]
    nll: Floats
    is_language: bool
    probe: Probe | None
    held: Held

    @property
    def losses(self) -> dict[int, float]:
        """Corpus loss of the trials that are averaged, by seed."""
        return {seed: score.loss for seed, score in self.scores.items()}

    @property
    def digests(self) -> dict[int, str]:
        """The trials that are averaged, by seed."""
        ended = [trial for trial in self.trials if trial.status == "done"]
        return {trial.seed: trial.digest for trial in ended if self.learning_rate is not None}


def results(store: Store) -> dict[str, Any]:
    """Return the results of a run, keys as the ``results`` command documents them.

    What is not known (yet) is None; no figure is NaN or infinite.
    """
    scored, study = arms_of(store), store.meta("study") or {}
    arms = _arms(store, scored)
    baseline = _baseline(store, arms)
    base_parameters = store.meta("base_parameters")
    steps = store.meta("steps_per_trial")
    measured = Measured(store=store, digests=store.meta("measures") or {})
    return {
        "study": store.meta("name"),
        "task": store.meta("task"),
        "split": SPLIT,
        "base": base_quality(store.scores(BASE).get(SPLIT)) | measured.of_base(),
        "placements": {
            arm.placement.name: _placement(arm, baseline, base_parameters, steps)
            | _interval(estimate(arm.nll, scored.num_tokens))
            | measured.of_trials(arm.digests)
            for arm in arms
        },
        "contrasts": contrasts(scored, study),
        "claims": claims(
            scored,
            {arm.placement.name: arm.held.parameters for arm in arms},
            study.get("hypothesis") or {},
            stated_late=bool(store.meta("stated_late")),
        ),
        "sweeps": sweeps(store, study),
        "num_trials": store.meta("num_trials"),
        "engines": engines(store),
        "environment": store.meta("environment"),
    }


def _arms(store: Store, scored: Arms) -> list[_Arm]:
    chosen, probes = store.meta("chosen") or {}, store.probes()
    trials = trials_at_chosen_rate(store)
    held = held_by(store, trials)
    return [
        _Arm(
            placement=placement,
            learning_rate=chosen.get(placement.name),
            trials=trials[placement.name],
            scores=scored.scores[placement.name],
            nll=scored.by_name[placement.name].nll,
            is_language=store.meta("task") != "classification",
            probe=probe_of(placement, probes),
            held=held[placement.name],
        )
        for placement in store.placements()
    ]


def _interval(found: Estimate) -> dict[str, Any]:
    """Return how far a placement's mean loss may be off, and over what."""
    return {
        "loss_interval": None if found.interval is None else list(found.interval),
        "loss_interval_over": found.scope,
    }


def _baseline(store: Store, arms: Sequence[_Arm]) -> _Arm | None:
    study = store.meta("study") or {}
    return next((arm for arm in arms if arm.placement.name == study.get("baseline")), None)


def _placement(
    arm: _Arm, baseline: _Arm | None, base_parameters: int | None, steps: int | None
) -> dict[str, Any]:
    placement, losses, held = arm.placement, list(arm.losses.values()), arm.held
    loss = mean(losses)
    count = held.parameters
    against = None if baseline is None else baseline.held.parameters
    return {
        "rule": placement.rule,
        "num_sites": held.num_sites or None,
        "ranks": list(held.ranks),
        "trainable_parameters": count,
        "trainable_parameters_range": None if held.extremes is None else list(held.extremes),
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
        "families": dict(held.families),
        "learning_rate": arm.learning_rate,
        "split": SPLIT,
        "loss": loss,
        "perplexity": finite(perplexity(loss)) if arm.is_language and loss is not None else None,
        **quality(list(arm.scores.values())),
        "losses": {str(seed): value for seed, value in arm.losses.items()},
        **_cost(arm.probe, steps, placement.selection_seconds),
        "selection_seconds": placement.selection_seconds,
        "learned": _learned(placement),
        "resources": resources(count, arm.probe, arm.trials),
        "num_trials": len(arm.trials),
        "num_failed": sum(trial.status != "done" for trial in arm.trials),
        "warnings": placement.warnings,
    }


def _learned(placement: PlacementRecord) -> dict[str, Any] | None:
    """Return how a placement was learned, without the scores of every site."""
    if placement.learned is None:
        return None
    learned = dict(placement.learned)
    if learned["kind"] == "hybrid":
        learned["scores"] = {k: v for k, v in learned["scores"].items() if k != "scores"}
    return learned


def _cost(probe: Probe | None, steps: int | None, selection: float | None) -> dict[str, Any]:
    """Return what a placement costs alone."""
    return {
        "seconds": trial_seconds(probe, steps, selection),
        "seconds_per_step": None if probe is None else probe.seconds_per_step,
        "tokens_per_second": None if probe is None else probe.tokens_per_second,
        "peak_memory_bytes": None if probe is None else probe.peak_memory_bytes,
    }
