"""What is to be exported: a trial that ended, its placement on its model, its saved adapter."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loratlas.anatomy.sites import Anatomy
from loratlas.errors import ExportError
from loratlas.export.choice import choose
from loratlas.placement.placement import Placement
from loratlas.study.inside import adapter_fault
from loratlas.study.moving import placement_of
from loratlas.study.records import PlacementRecord, TrialRecord
from loratlas.study.store import Store
from loratlas.train.trial import ModelRef, TrainingSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A trial to export.

    Attributes:
        name: what the study calls its placement.
        trial: its record.
        placement: where its saved adapters are; where it ended, for one that moved.
        folder: its saved adapter, as the run holds it.
        model: the base, as the study names it.
        base_digest: SHA-256 of the base's configuration and weights; None where it was not kept.
        task: what the base predicts.
        dropout: on the adapters' input, while it was trained.
        training: how it was trained.
        max_length: longest row in tokens; None where it is not known.
    """

    name: str
    trial: TrialRecord
    placement: Placement
    folder: Path
    model: ModelRef
    base_digest: str | None
    task: str
    dropout: float
    training: TrainingSpec
    max_length: int | None

    @property
    def title(self) -> str:
        """What a message calls it."""
        return f"{self.name}, seed {self.trial.seed}"

    @property
    def ranks(self) -> list[int]:
        """The ranks that occur, in ascending order."""
        return sorted({adapter.rank for adapter in self.placement.adapters})

    @property
    def scales(self) -> list[float]:
        """The factors on B A x that occur, in ascending order."""
        return sorted({self.placement.scale(adapter) for adapter in self.placement.adapters})


def subject_of(run: Path, store: Store, wanted: str) -> Subject:
    """Return the trial that is meant, with all that an export needs.

    Raises:
        ExportError: no trial or several are meant, it did not end well, its adapter is gone, or
            the run does not say which model and training it had.
    """
    record, trial = choose(store, wanted)
    study, anatomy = store.meta("study") or {}, store.meta("anatomy")
    if anatomy is None or not {"model", "lora", "training"} <= study.keys():
        raise ExportError(
            f"{run}: the run does not say which model was trained and how, as one that was "
            "imported does not; there is nothing to export"
        )
    fault = adapter_fault(run, trial.adapter)
    if fault is not None:
        raise ExportError(f"{record.name}, seed {trial.seed}: {fault}")
    return Subject(
        name=record.name,
        trial=trial,
        placement=_placement(record, trial, study, Anatomy.from_json(anatomy)),
        folder=run / str(trial.adapter),
        model=_model(study, store),
        base_digest=(store.meta("identity") or {}).get("base"),
        task=store.meta("task") or "causal",
        dropout=float(study["lora"]["dropout"]),
        training=TrainingSpec(**study["training"]),
        max_length=(study.get("data") or {}).get("max_length"),
    )


def _placement(
    record: PlacementRecord, trial: TrialRecord, study: Mapping[str, Any], anatomy: Anatomy
) -> Placement:
    resolved = Placement.from_json(
        {"placement": record.adapters}, anatomy, scaling=study["lora"]["scaling"]
    )
    return placement_of(trial, resolved)


def _model(study: Mapping[str, Any], store: Store) -> ModelRef:
    classes = store.meta("classes") or []
    model = dict(study["model"])
    return ModelRef(**model | {"num_labels": len(classes) or model.get("num_labels")})
