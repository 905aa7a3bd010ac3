"""What a study needs before its run folder is touched: everything that can be wrong is here."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loratlas.anatomy.read import read
from loratlas.data.batches import PreparedData, prepare
from loratlas.errors import DataError, StudyError
from loratlas.study.progress import Listener
from loratlas.study.resolve import ResolvedPlacement, resolve_study
from loratlas.study.spec import StudySpec
from loratlas.train.base import Base, load_base, load_tokenizer, max_positions, pick_device
from loratlas.train.reference import num_steps, warmup_steps


@dataclass(frozen=True, kw_only=True)
class Request:
    """A study, found right: its placements on its model, its rows, its base."""

    study: StudySpec
    placements: Sequence[ResolvedPlacement]
    data: PreparedData
    base: Base

    @property
    def identity(self) -> dict[str, Any]:
        """What a run folder belongs to: the study, what it resolves to, base and rows.

        A model folder counts by its name alone: its weights are in the base's digest.
        """
        stored = as_stored(self.study)
        if Path(stored["model"]["name"]).exists():
            stored["model"]["name"] = Path(stored["model"]["name"]).name
        resolved = {placement.name: placement.placement.digest for placement in self.placements}
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
    listener.say(f"reading {study.model.name}")
    device = pick_device(study.device)
    anatomy = read(
        study.model.name,
        revision=study.model.revision,
        trust_remote_code=study.model.trust_remote_code,
    )
    placements = resolve_study(study, anatomy)
    for line in warnings_of(placements):
        listener.say(line)
    data = prepare(study.data, load_tokenizer(study.model), root=study.root)
    _require_splits(study, data)
    _require_warmup(study, len(data.train.rows))
    for line in data.report:
        listener.say(line)
    base = load_base(
        study.model,
        dtype=study.training.dtype,
        base_dropout=study.training.base_dropout,
        device=device,
    )
    _require_fit(study, data, base)
    return Request(study=study, placements=placements, data=data, base=base)


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


def _require_fit(study: StudySpec, data: PreparedData, base: Base) -> None:
    """Refuse rows that the base cannot read: too long, or of another vocabulary."""
    rows = [row for split in (data.train, data.validation, data.test) for row in split.rows]
    longest = max(len(row.ids) for row in rows)
    limit = max_positions(base.model)
    if limit is not None and longest > limit:
        raise StudyError(
            f"{study.path}: data.max_length: {study.data.max_length} lets rows of {longest} tokens "
            f"through, and {study.model.name} reads at most {limit}"
        )
    largest = max(int(row.ids.max()) for row in rows)
    vocabulary = base.model.get_input_embeddings().num_embeddings
    if largest >= vocabulary:
        raise DataError(
            f"{study.model.name}: its tokenizer gives token {largest}, but its vocabulary has "
            f"{vocabulary:,} entries: tokenizer and model do not belong together"
        )
