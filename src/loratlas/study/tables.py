"""The tables of a run's store: what each row of them holds."""

from typing import Any

from sqlalchemy import JSON, ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SCHEMA = 2
"""Number of the form of these tables; a store of another one is not read."""


class Table(DeclarativeBase):
    """What every table shares."""

    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON}  # noqa: RUF012


class Meta(Table):
    """Plain data under a key."""

    __tablename__ = "meta"
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[dict[str, Any]]


class Placement(Table):
    """A placement of the study, in the order of its file."""

    __tablename__ = "placements"
    name: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int]
    digest: Mapped[str]
    content: Mapped[dict[str, Any]]


class Trial(Table):
    """How one trial went."""

    __tablename__ = "trials"
    digest: Mapped[str] = mapped_column(primary_key=True)
    placement_digest: Mapped[str]
    learning_rate: Mapped[float]
    seed: Mapped[int]
    status: Mapped[str]
    spec: Mapped[dict[str, Any]]
    content: Mapped[dict[str, Any]]
    finished: Mapped[str]


class Score(Table):
    """Which split of which trial (or of the untuned base) was scored."""

    __tablename__ = "scores"
    id: Mapped[int] = mapped_column(primary_key=True)
    trial: Mapped[str] = mapped_column(index=True)
    split: Mapped[str]


class Example(Table):
    """What a model gave to one row of a scored split; columns as in `SplitScore`."""

    __tablename__ = "examples"
    score: Mapped[int] = mapped_column(ForeignKey("scores.id"), primary_key=True)
    row: Mapped[int] = mapped_column(primary_key=True)
    nll: Mapped[float]
    num_tokens: Mapped[int]
    num_bytes: Mapped[int]
    num_correct: Mapped[int]
    label: Mapped[int | None]
    predicted: Mapped[int | None]


class Measurement(Table):
    """What came out of a measure beside the loss, of a trial or of the untuned base."""

    __tablename__ = "measurements"
    id: Mapped[int] = mapped_column(primary_key=True)
    trial: Mapped[str] = mapped_column(index=True)
    measure: Mapped[str]
    digest: Mapped[str]
    content: Mapped[dict[str, Any]]


class Answer(Table):
    """What a model gave to one question of a task; columns as in `Answer` of the measures."""

    __tablename__ = "answers"
    measurement: Mapped[int] = mapped_column(ForeignKey("measurements.id"), primary_key=True)
    question: Mapped[int] = mapped_column(primary_key=True)
    prompt_digest: Mapped[str]
    truncated: Mapped[bool]
    text: Mapped[str | None]
    log_likelihoods: Mapped[list[Any]]
    extracted: Mapped[dict[str, Any]]
    metrics: Mapped[dict[str, Any]]


class Probe(Table):
    """What a placement costs when it trains alone."""

    __tablename__ = "probes"
    placement_digest: Mapped[str] = mapped_column(primary_key=True)
    content: Mapped[dict[str, Any]]
