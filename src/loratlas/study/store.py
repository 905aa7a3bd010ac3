"""Where a run keeps what it found: one SQLite file, one writer.

Every record is written in one transaction, so that a process killed at any moment leaves
either the whole of it or nothing. The journal is SQLite's default, the rollback journal, not
WAL: SQLite before 3.51.3 can corrupt a WAL database.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from sqlalchemy import JSON, Engine, ForeignKey, create_engine, delete, event, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from loratlas.errors import RunFolderError, StoreError
from loratlas.measure.scores import SplitScore
from loratlas.study.records import BASE, PlacementRecord, TrialRecord
from loratlas.train.outcome import Probe

SCHEMA = 1
# A reader holds the file for milliseconds; a writer that waits this long has met something else.
_LOCK_TIMEOUT_S = 30
FILE_NAME = "run.sqlite"
NEW_NAME = f"{FILE_NAME}.new"


class _Table(DeclarativeBase):
    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON}  # noqa: RUF012


class _Meta(_Table):
    __tablename__ = "meta"
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[dict[str, Any]]


class _Placement(_Table):
    __tablename__ = "placements"
    name: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int]
    digest: Mapped[str]
    content: Mapped[dict[str, Any]]


class _Trial(_Table):
    __tablename__ = "trials"
    digest: Mapped[str] = mapped_column(primary_key=True)
    placement_digest: Mapped[str]
    learning_rate: Mapped[float]
    seed: Mapped[int]
    status: Mapped[str]
    spec: Mapped[dict[str, Any]]
    content: Mapped[dict[str, Any]]
    finished: Mapped[str]


class _Score(_Table):
    __tablename__ = "scores"
    id: Mapped[int] = mapped_column(primary_key=True)
    trial: Mapped[str] = mapped_column(index=True)
    split: Mapped[str]


class _Example(_Table):
    __tablename__ = "examples"
    score: Mapped[int] = mapped_column(ForeignKey("scores.id"), primary_key=True)
    row: Mapped[int] = mapped_column(primary_key=True)
    nll: Mapped[float]
    num_tokens: Mapped[int]
    num_bytes: Mapped[int]


class _Probe(_Table):
    __tablename__ = "probes"
    placement_digest: Mapped[str] = mapped_column(primary_key=True)
    content: Mapped[dict[str, Any]]


class Store:
    """The records of one run folder.

    Args:
        path: the SQLite file.
        writable: for the one writer, which makes the file when it is missing. Readers open it
            for queries alone, so that looking at a run never stands in its way. (Not as a
            read-only file: after a kill, SQLite's journal has to be rolled back by whoever
            comes next.)

    Raises:
        RunFolderError: there is no store, or one of another schema.
        StoreError: the file cannot be read or written.
    """

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        if not path.is_file():
            if not writable:
                raise RunFolderError(f"{path.parent}: no run here ({path.name} is missing)")
            _make(path)
        self._path = path
        self._engine = _engine(path, "rw")
        if not writable:
            event.listen(self._engine, "connect", _only_queries)
        self._check_schema()

    def close(self) -> None:
        """Let go of the file."""
        self._engine.dispose()

    def meta(self, key: str) -> Any:
        """Return what was kept under a key, or None."""
        with self._session() as session:
            found = session.get(_Meta, key)
            return None if found is None else found.value["value"]

    def set_meta(self, key: str, value: Any) -> None:
        """Keep plain data under a key."""
        with self._session() as session:
            session.merge(_Meta(key=key, value={"value": value}))

    def set_placements(self, placements: Sequence[PlacementRecord]) -> None:
        """Keep the placements of the study, in the order of its file."""
        with self._session() as session:
            session.execute(delete(_Placement))
            for position, placement in enumerate(placements):
                session.add(
                    _Placement(
                        name=placement.name,
                        position=position,
                        digest=placement.digest,
                        content=asdict(placement),
                    )
                )

    def placements(self) -> list[PlacementRecord]:
        """Return the placements in the order of the study file."""
        with self._session() as session:
            found = session.scalars(select(_Placement).order_by(_Placement.position))
            return [PlacementRecord(**row.content) for row in found]

    def add_trial(
        self, record: TrialRecord, spec: Mapping[str, Any], scores: Mapping[str, SplitScore]
    ) -> None:
        """Keep a finished trial and all its scores, or nothing; replaces an earlier attempt."""
        with self._session() as session:
            self._forget(session, record.digest)
            session.add(
                _Trial(
                    digest=record.digest,
                    placement_digest=record.placement_digest,
                    learning_rate=record.learning_rate,
                    seed=record.seed,
                    status=record.status,
                    spec=dict(spec),
                    content=asdict(record),
                    finished=datetime.now(UTC).isoformat(timespec="seconds"),
                )
            )
            self._add_scores(session, record.digest, scores)

    def trials(self) -> dict[str, TrialRecord]:
        """Return every trial by its digest."""
        with self._session() as session:
            found = session.scalars(select(_Trial).order_by(_Trial.digest))
            return {row.digest: TrialRecord(**row.content) for row in found}

    def set_base_scores(self, scores: Mapping[str, SplitScore]) -> None:
        """Keep what the untuned base gives to each split."""
        with self._session() as session:
            self._forget(session, BASE)
            self._add_scores(session, BASE, scores)

    def scores(self, trial: str) -> dict[str, SplitScore]:
        """Return the scores of a trial, or of `BASE`, by split; rows in the order scored."""
        with self._session() as session:
            found = session.scalars(select(_Score).where(_Score.trial == trial)).all()
            return {score.split: _read_score(session, score.id) for score in found}

    def set_probe(self, placement_digest: str, probe: Probe) -> None:
        """Keep what a placement costs alone."""
        with self._session() as session:
            session.merge(_Probe(placement_digest=placement_digest, content=asdict(probe)))

    def probes(self) -> dict[str, Probe]:
        """Return the probes by the digest of their placement."""
        with self._session() as session:
            found = session.scalars(select(_Probe))
            return {row.placement_digest: Probe(**row.content) for row in found}

    def _check_schema(self) -> None:
        schema = self.meta("schema")
        if schema != SCHEMA:
            raise RunFolderError(
                f"{self._path}: written with schema {schema}, this version reads schema {SCHEMA}"
            )

    @contextmanager
    def _session(self) -> Iterator[Session]:
        with _told(self._path), Session(self._engine) as session, session.begin():
            yield session

    @staticmethod
    def _forget(session: Session, trial: str) -> None:
        old = select(_Score.id).where(_Score.trial == trial)
        session.execute(delete(_Example).where(_Example.score.in_(old)))
        session.execute(delete(_Score).where(_Score.trial == trial))
        session.execute(delete(_Trial).where(_Trial.digest == trial))

    @staticmethod
    def _add_scores(session: Session, trial: str, scores: Mapping[str, SplitScore]) -> None:
        for split, score in scores.items():
            entry = _Score(trial=trial, split=split)
            session.add(entry)
            session.flush()
            columns = (score.row, score.nll, score.num_tokens, score.num_bytes)
            session.add_all(
                _Example(score=entry.id, row=row, nll=nll, num_tokens=tokens, num_bytes=size)
                for row, nll, tokens, size in zip(*(c.tolist() for c in columns), strict=True)
            )


def _make(path: Path) -> None:
    """Make an empty store, whole or not at all: SQLite makes its tables one by one."""
    new = path.with_name(NEW_NAME)
    with _told(path):
        for left in (new, new.with_name(f"{NEW_NAME}-journal")):
            left.unlink(missing_ok=True)
        engine = _engine(new, "rwc")
        _Table.metadata.create_all(engine)
        with Session(engine) as session, session.begin():
            session.add(_Meta(key="schema", value={"value": SCHEMA}))
        engine.dispose()
        new.replace(path)


def _engine(path: Path, mode: str) -> Engine:
    place = quote(str(path.absolute()))
    engine = create_engine(
        f"sqlite:///file:{place}?mode={mode}&uri=true",
        connect_args={"timeout": _LOCK_TIMEOUT_S},
    )
    event.listen(engine, "connect", _configure)
    return engine


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn what goes wrong with a file into one sentence about it."""
    try:
        yield
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or error).split("\n")[0]
        raise StoreError(f"{path}: {cause}") from error
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error


def _only_queries(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA query_only = ON")
    cursor.close()


def _configure(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _read_score(session: Session, score: int) -> SplitScore:
    found = session.execute(
        select(_Example.row, _Example.nll, _Example.num_tokens, _Example.num_bytes)
        .where(_Example.score == score)
        .order_by(_Example.row)
    ).all()
    row, nll, num_tokens, num_bytes = zip(*found, strict=True)
    return SplitScore(
        row=np.array(row, dtype=np.int64),
        nll=np.array(nll, dtype=np.float64),
        num_tokens=np.array(num_tokens, dtype=np.int64),
        num_bytes=np.array(num_bytes, dtype=np.int64),
    )
