"""What a study needs before its run folder is touched: everything that can be wrong is here."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loratlas.anatomy.read import read
from loratlas.anatomy.sites import Anatomy
from loratlas.data.batches import PreparedData, prepare
from loratlas.errors import DataError, StudyError
from loratlas.study.measuring import prepare_measures, require_known
from loratlas.study.progress import Listener
from loratlas.study.resolve import ResolvedPlacement, resolve_study
from loratlas.study.spec import StudySpec
from loratlas.train.base import (
    Base,
    load_base,
    load_tokenizer,
    max_positions,
    pick_device,
    read_task,
)
from loratlas.train.reference import num_steps, warmup_steps
from loratlas.train.trial import ModelRef

if TYPE_CHECKING:
    from loratlas.measure.forgetting import PreparedForgetting
    from loratlas.measure.harness import PreparedTask


ASKED_OF_SCORES = ("margin", "hypothesis")
"""Keys of a study that decide how scores are judged, and not which there are."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """A study, found right: its placements on its model, its rows, its base."""

    study: StudySpec
    anatomy: Anatomy
    placements: Sequence[ResolvedPlacement]
    data: PreparedData
    base: Base
    measures: "Sequence[PreparedTask | PreparedForgetting]" = ()

    @property
    def identity(self) -> dict[str, Any]:
        """What a run folder belongs to: the study, what it resolves to, base and rows.

        A model folder counts by its name alone: its weights are in the base's digest. Measures
        do not count: they are taken of saved adapters, each under a digest of its own. Nor does
        what is asked of the scores: margin and hypotheses.
        """
        stored = as_stored(self.study)
        for key in ("measures", *ASKED_OF_SCORES):
            del stored[key]
        if Path(stored["model"]["name"]).exists():
            stored["model"]["name"] = Path(stored["model"]["name"]).name
        resolved = {placement.name: placement.digest for placement in self.placements}
        return {
            **stored,
            "resolved": resolved,
            "base": self.base.digest,
            "data_rows": self.data.digest,
        }


def make_request(study: StudySpec, listener: Listener) -> Request:
    """Look at everything that a study asks for, and load its base.

    Raises:
        RequestError: the study does not fit its model or data, or they cannot be read.
    """
    require_known(study)
    listener.say(f"reading {study.model.name}")
    device = pick_device(study.device)
    anatomy = read_anatomy(study.model)
    data = read_data(study)
    model = model_for(study, data)
    if model.num_labels is not None:
        anatomy = read_anatomy(model)
    placements = resolve_study(study, anatomy)
    for line in warnings_of(placements):
        listener.say(line)
    _require_splits(study, data)
    _require_warmup(study, len(data.train.rows))
    for line in data.report:
        listener.say(line)
    base = load_base(
        model,
        dtype=study.training.dtype,
        base_dropout=study.training.base_dropout,
        device=device,
    )
    _require_no_head(study, placements, base)
    require_fit(study, data, base)
    measures = prepare_measures(study, base, listener)
    return Request(
        study=study,
        anatomy=anatomy,
        placements=placements,
        data=data,
        base=base,
        measures=measures,
    )


def read_data(study: StudySpec) -> PreparedData:
    """Return the rows of a study, as its model reads them.

    Raises:
        RequestError: rows, tokenizer or configuration cannot be found or read.
    """
    task = read_task(study.model, study.data.format)
    return prepare(study.data, load_tokenizer(study.model), root=study.root, task=task)


def model_for(study: StudySpec, data: PreparedData) -> ModelRef:
    """Return the model of a study, with a head for the classes of its data if there are any."""
    return replace(study.model, num_labels=len(data.classes) or None)


def read_anatomy(model: ModelRef) -> Anatomy:
    """Return the anatomy of a study's model."""
    return read(
        model.name,
        revision=model.revision,
        trust_remote_code=model.trust_remote_code,
        num_labels=model.num_labels,
    )


def warnings_of(placements: Iterable[ResolvedPlacement]) -> list[str]:
    """Return one line per warning, the placement's name before it."""
    return [
        f"{placement.name}: {lint.code}: {lint.message}"
        for placement in placements
        for lint in placement.lints
    ]


def as_stored(study: StudySpec) -> dict[str, Any]:
    """Return a study as JSON gives it back, so that it can be compared with what was kept."""
    stored: dict[str, Any] = json.loads(json.dumps(study.to_json()))
    return stored


def _require_splits(study: StudySpec, data: PreparedData) -> None:
    if not data.test.rows:
        raise StudyError(f"{study.path}: data.test: no test rows; the answer is read from them")
    if len(study.training.learning_rate) > 1 and not data.validation.rows:
        raise StudyError(
            f"{study.path}: data.validation: several learning rates need validation rows "
            "to choose between them, and there are none"
        )


def _require_warmup(study: StudySpec, num_rows: int) -> None:
    """Refuse a warm-up that the training does not outlast: its peak rate would never occur."""
    steps = num_steps(study.training, num_rows)
    warm = warmup_steps(study.training, steps)
    if warm >= steps:
        raise StudyError(
            f"{study.path}: training.warmup: {warm} steps of warm-up, and a trial has {steps} "
            "steps; the learning rate would never be reached"
        )


def require_fit(study: StudySpec, data: PreparedData, base: Base) -> None:
    """Refuse rows that the base cannot read: too long, or of another vocabulary."""
    rows = [row for split in (data.train, data.validation, data.test) for row in split.rows]
    sequences = [ids for row in rows for ids in (row.ids, row.source) if ids is not None]
    longest = max(len(ids) for ids in sequences)
    limit = max_positions(base.model)
    if limit is not None and longest > limit:
        raise StudyError(
            f"{study.path}: data.max_length: {study.data.max_length} lets rows of {longest} tokens "
            f"through, and {study.model.name} reads at most {limit}"
        )
    largest = max(int(ids.max()) for ids in sequences)
    vocabulary = base.model.get_input_embeddings().num_embeddings
    if largest >= vocabulary:
        raise DataError(
            f"{study.model.name}: its tokenizer gives token {largest}, but its vocabulary has "
            f"{vocabulary:,} entries: tokenizer and model do not belong together"
        )


def _require_no_head(study: StudySpec, placements: Sequence[ResolvedPlacement], base: Base) -> None:
    """Refuse adapters on a new classification head, which is trained whole in any case."""
    for resolved in placements:
        for adapter in resolved.placement.adapters:
            path = adapter.site.path
            if any(path == module or path.startswith(f"{module}.") for module in base.head):
                raise StudyError(
                    f"{study.path}: placements.{resolved.name}: {path} belongs to the new "
                    f"classification head ({', '.join(base.head)}), which is trained whole in "
                    "every placement; leave it out"
                )
