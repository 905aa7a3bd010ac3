"""What was read from elsewhere, in the form in which a run keeps it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from loratlas.anatomy.sites import Anatomy
from loratlas.errors import DataError, did_you_mean
from loratlas.measure.answers import TaskScore
from loratlas.measure.scores import SplitScore
from loratlas.study.records import PlacementRecord, TrialRecord
from loratlas.study.trials import Validated, choose_learning_rate
from loratlas.train.outcome import Probe

ENGINE = "imported"
MARGIN = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """Records that were made elsewhere.

    Attributes:
        source: which kind of source it was.
        placements: in the order of the source.
        trials: records with their scores by split; a trial without any has none.
        base: scores of the untuned base by split.
        tasks: figures of tasks, by task, of trials by digest.
        probes: what placements cost alone, by their digests.
        anatomy: the model's sites, where they are known.
        setting: what is kept beside them.
        notes: what a person should know of the import.
    """

    source: str
    placements: Sequence[PlacementRecord]
    trials: Sequence[tuple[TrialRecord, Mapping[str, SplitScore]]] = ()
    base: Mapping[str, SplitScore] = field(default_factory=dict)
    tasks: Mapping[str, Mapping[str, TaskScore]] = field(default_factory=dict)
    probes: Mapping[str, Probe] = field(default_factory=dict)
    anatomy: Anatomy | None = None
    setting: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def baseline(self, wanted: str | None) -> str:
        """Return the placement that the others are held against.

        Raises:
            DataError: there is no such placement.
        """
        names = [placement.name for placement in self.placements]
        if wanted is None:
            return names[0]
        if wanted not in names:
            raise DataError(
                f"--baseline {wanted}: there is no such placement{did_you_mean(wanted, names)}; "
                f"there is: {', '.join(names[:8])}"
            )
        return wanted

    def chosen(self) -> dict[str, float | None]:
        """Return the learning rate of each placement: the only one, or by validation rows."""
        return {placement.name: self._rate(placement) for placement in self.placements}

    def _rate(self, placement: PlacementRecord) -> float | None:
        own = [each for each in self.trials if each[0].placement_digest == placement.digest]
        rates = {record.learning_rate for record, _ in own}
        if not rates:
            return None
        if len(rates) > 1:
            _require_validation(placement.name, rates, own)
        return choose_learning_rate(
            Validated(
                learning_rate=record.learning_rate,
                status=record.status,
                loss=scores["validation"].loss if "validation" in scores else None,
            )
            for record, scores in own
        )


def _require_validation(
    name: str,
    rates: Iterable[float],
    trials: Iterable[tuple[TrialRecord, Mapping[str, SplitScore]]],
) -> None:
    """Refuse several rates that nothing chooses between."""
    if any(r.status == "done" and "validation" not in scores for r, scores in trials):
        listed = ", ".join(f"{rate:g}" for rate in sorted(rates))
        raise DataError(
            f"{name}: learning rates {listed}: several need rows of the split validation, "
            "by which one is chosen; or give one"
        )
