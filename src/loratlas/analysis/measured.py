"""What tasks and forgetting say of each placement: means over seeds, with their intervals.

Only figures of the measures that the study asks for now are read; what an earlier form of a
measure gave stays in the store, unread.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loratlas.analysis.intervals import mean_interval
from loratlas.analysis.quality import finite
from loratlas.measure.measures import FORGETTING
from loratlas.measure.scores import SplitScore
from loratlas.study.records import BASE, MeasurementRecord
from loratlas.study.store import Store


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the models of a run gave to the measures beside the loss.

    Attributes:
        store: the run's records.
        digests: of the measures that the study asks for, by name.
    """

    store: Store
    digests: Mapping[str, str]

    def of_base(self) -> dict[str, Any]:
        """Return what the untuned base gave: ``{"tasks", "forgetting"}``."""
        text = self._text(BASE)
        return {
            "tasks": {name: self._base_task(name) for name in self._tasks},
            "forgetting": None if text is None else _size(text) | {"loss": finite(text.loss)},
        }

    def of_trials(self, trials: Mapping[int, str]) -> dict[str, Any]:
        """Return what trials gave, with the same keys.

        Args:
            trials: digests of the trials of one placement that are done, by seed.
        """
        return {
            "tasks": {name: self._task(name, trials) for name in self._tasks},
            "forgetting": self._forgetting(trials),
        }

    @property
    def _tasks(self) -> list[str]:
        return [name for name in self.digests if name != FORGETTING]

    def _base_task(self, name: str) -> dict[str, Any] | None:
        base = self._record(BASE, name)
        if base is None:
            return None
        return {
            metric: {"mean": value, "interval": None} | _questions(base)
            for metric, value in base.metrics.items()
        }

    def _task(self, name: str, trials: Mapping[int, str]) -> dict[str, Any] | None:
        base = self._record(BASE, name)
        if base is None:
            return None
        found = {seed: self._record(trial, name) for seed, trial in trials.items()}
        known = {seed: record.metrics for seed, record in found.items() if record is not None}
        return {
            metric: _over_seeds({seed: each[metric] for seed, each in known.items()})
            | _questions(base)
            for metric in base.metrics
        }

    def _forgetting(self, trials: Mapping[int, str]) -> dict[str, Any] | None:
        before = self._text(BASE)
        if before is None:
            return None
        found = {seed: self._text(trial) for seed, trial in trials.items()}
        losses = {seed: finite(text.loss) for seed, text in found.items() if text is not None}
        more = {s: None if loss is None else loss - before.loss for s, loss in losses.items()}
        change = _over_seeds(more)
        return {
            "before": finite(before.loss),
            "after": _mean(list(losses.values())),
            "difference": change["mean"],
            "interval": change["interval"],
            "losses": {str(seed): loss for seed, loss in losses.items()},
            **_size(before),
        }

    def _text(self, trial: str) -> SplitScore | None:
        if self._record(trial, FORGETTING) is None:
            return None
        return self.store.scores(trial)[FORGETTING]

    def _record(self, trial: str, name: str) -> MeasurementRecord | None:
        found = self.store.measurements(trial).get(name)
        return found if found is not None and found.digest == self.digests.get(name) else None


def _over_seeds(values: Mapping[int, float | None]) -> dict[str, Any]:
    known = list(values.values())
    numbers = [value for value in known if value is not None]
    return {
        "mean": _mean(known),
        "interval": mean_interval(numbers) if len(numbers) == len(known) else None,
        "values": {str(seed): value for seed, value in values.items()},
    }


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean; None where there is nothing, or one value is no number."""
    numbers = [value for value in values if value is not None]
    if not numbers or len(numbers) < len(values):
        return None
    return math.fsum(numbers) / len(numbers)


def _questions(record: MeasurementRecord) -> dict[str, int | None]:
    """Return how many questions there were; of figures that were imported it is not known."""
    return {
        "num_questions": record.num_questions or None,
        "num_truncated": record.num_truncated,
    }


def _size(text: SplitScore) -> dict[str, int]:
    return {"num_rows": len(text.row), "num_tokens": int(text.num_tokens.sum())}
