"""What does the run say of the placement that is exported: figures, interval, verdict?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loratlas.analysis.summary import results
from loratlas.study.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What a model card says of a placement; None where the run does not know it.

    Attributes:
        study: name of the study.
        split: rows that it was scored on.
        task: what the base predicts.
        loss: mean over seeds at the chosen rate, nats per scored prediction.
        interval: of that loss.
        over: what the interval captures.
        base_loss: of the untuned base.
        num_seeds: trials that the mean rests on.
        says: the verdict against the baseline, in sentences.
        data: what the study was trained on.
    """

    study: str | None
    split: str
    task: str | None
    loss: float | None
    interval: tuple[float, float] | None
    over: str | None
    base_loss: float | None
    num_seeds: int
    says: str | None
    data: str | None


def evidence_of(store: Store, placement: str) -> Evidence:
    """Return what a run says of one of its placements."""
    found = results(store)
    own = found["placements"][placement]
    contrast = next((each for each in found["contrasts"] if each["placement"] == placement), None)
    interval = own["loss_interval"]
    study = store.meta("study") or {}
    says = None if contrast is None else contrast["says"]
    if study.get("baseline") == placement:
        says = "This is the baseline, which the other placements are held against."
    return Evidence(
        study=found["study"],
        split=found["split"],
        task=found["task"],
        loss=own["loss"],
        interval=None if interval is None else (interval[0], interval[1]),
        over=own["loss_interval_over"],
        base_loss=found["base"]["loss"],
        num_seeds=len(own["losses"]),
        says=says,
        data=_data(study.get("data") or {}),
    )


def _data(data: Mapping[str, Any]) -> str | None:
    """Return what a person may know of the data: a path is nobody else's business."""
    source = data.get("source")
    if source is None:
        return None
    return str(source).replace("\\", "/").rpartition("/")[2] if _is_file(str(source)) else source


def _is_file(source: str) -> bool:
    return source.rpartition(".")[2] in {"json", "jsonl", "csv", "parquet"}
