"""Where a run keeps what it found: one SQLite file, one writer.

Every record is written in one transaction, so that a process killed at any moment leaves
either the whole of it or nothing. The journal is SQLite's default, the rollback journal, not
WAL: SQLite before 3.51.3 can corrupt a WAL database.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from sqlalchemy import Engine, create_engine, delete, event, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from loratlas.errors import RunFolderError, StoreError
from loratlas.measure.answers import Answer, TaskScore
from loratlas.measure.scores import SplitScore
from loratlas.study import claims, measured, tables
from loratlas.study.claims import Claim
from loratlas.study.records import BASE, MeasurementRecord, PlacementRecord, TrialRecord
from loratlas.train.outcome import Probe

# A reader holds the file for milliseconds; a writer that waits this long has met something else.
_LOCK_TIMEOUT_S = 30
FILE_NAME = "run.sqlite"
NEW_NAME = f"{FILE_NAME}.new"
_EXAMPLE_COLUMNS = tuple(field.name for field in fields(SplitScore))


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
            found = session.get(tables.Meta, key)
            return None if found is None else found.value["value"]

    def set_meta(self, key: str, value: Any) -> None:
        """Keep plain data under a key."""
        with self._session() as session:
            session.merge(tables.Meta(key=key, value={"value": value}))

    def set_placements(self, placements: Sequence[PlacementRecord]) -> None:
        """Keep the placements of the study, in the order of its file."""
        with self._session() as session:
            session.execute(delete(tables.Placement))
            for position, placement in enumerate(placements):
                session.add(
                    tables.Placement(
                        name=placement.name,
                        position=position,
                        digest=placement.digest,
                        content=asdict(placement),
                    )
                )

    def placements(self) -> list[PlacementRecord]:
        """Return the placements in the order of the study file."""
        with self._session() as session:
            found = session.scalars(select(tables.Placement).order_by(tables.Placement.position))
            return [PlacementRecord(**row.content) for row in found]

    def claim(self, trials: Iterable[str], owner: str) -> Claim:
        """Note that somebody begins trials, each as an attempt of its own number.

        Whoever claimed them before cannot store what came out of them any more.
        """
        with self._session() as session:
            kept = claims.kept(session)
            claim = claims.next_claim(kept, trials, owner)
            claims.keep(session, kept | claims.entries(claim))
            return claim

    def under_way(self, owner: str) -> list[str]:
        """Return the trials that an owner has begun and nobody has ended."""
        with self._session() as session:
            return claims.under_way(claims.kept(session), owner)

    def add_trial(
        self, record: TrialRecord, spec: Mapping[str, Any], scores: Mapping[str, SplitScore]
    ) -> None:
        """Keep a finished trial and all its scores, or nothing; replaces an earlier attempt."""
        self.add_trials([(record, spec, scores)])

    def add_trials(
        self,
        finished: Iterable[tuple[TrialRecord, Mapping[str, Any], Mapping[str, SplitScore]]],
        claim: Claim | None = None,
    ) -> None:
        """Keep trials that finished together, with their specifications and scores, or none.

        Raises:
            StaleClaimError: somebody else has begun them since they were claimed.
        """
        with self._session() as session:
            if claim is not None:
                kept = claims.kept(session)
                claims.require_current(kept, claim)
                claims.keep(session, kept | claims.ended(claim))
            for record, spec, scores in finished:
                self._forget(session, record.digest)
                session.add(
                    tables.Trial(
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
            found = session.scalars(select(tables.Trial).order_by(tables.Trial.digest))
            return {row.digest: TrialRecord(**row.content) for row in found}

    def set_base_scores(self, scores: Mapping[str, SplitScore]) -> None:
        """Keep what the untuned base gives to each split."""
        with self._session() as session:
            self._forget(session, BASE)
            self._add_scores(session, BASE, scores)

    def scores(self, trial: str) -> dict[str, SplitScore]:
        """Return the scores of a trial, or of `BASE`, by split; rows in the order scored."""
        with self._session() as session:
            found = session.scalars(select(tables.Score).where(tables.Score.trial == trial)).all()
            return {score.split: _read_score(session, score.id) for score in found}

    def set_measurement(
        self, trial: str, measure: str, digest: str, found: TaskScore | SplitScore
    ) -> None:
        """Keep what a trial, or `BASE`, gave to a measure; replaces what it gave before."""
        with self._session() as session:
            self._forget_scores(session, trial, measure)
            measured.forget(session, trial, measure)
            measured.write(session, trial, measure, digest, found)
            if isinstance(found, SplitScore):
                self._add_scores(session, trial, {measure: found})

    def measurements(self, trial: str) -> dict[str, MeasurementRecord]:
        """Return what a trial, or `BASE`, gave to each measure beside the loss."""
        with self._session() as session:
            return measured.read(session, trial)

    def answers(self, trial: str, measure: str) -> list[Answer]:
        """Return the answers that a trial, or `BASE`, gave to the questions of a task."""
        with self._session() as session:
            return list(measured.answers(session, trial, measure))

    def set_probe(self, placement_digest: str, probe: Probe) -> None:
        """Keep what a placement costs alone."""
        with self._session() as session:
            session.merge(tables.Probe(placement_digest=placement_digest, content=asdict(probe)))

    def probes(self) -> dict[str, Probe]:
        """Return the probes by the digest of their placement."""
        with self._session() as session:
            found = session.scalars(select(tables.Probe))
            return {row.placement_digest: Probe(**row.content) for row in found}

    def _check_schema(self) -> None:
        found = self.meta("schema")
        if found != tables.SCHEMA:
            raise RunFolderError(
                f"{self._path}: written with schema {found}, "
                f"this version reads schema {tables.SCHEMA}"
            )

    @contextmanager
    def _session(self) -> Iterator[Session]:
        with _told(self._path), Session(self._engine) as session, session.begin():
            yield session

    @staticmethod
    def _forget(session: Session, trial: str) -> None:
        Store._forget_scores(session, trial)
        measured.forget(session, trial)
        session.execute(delete(tables.Trial).where(tables.Trial.digest == trial))

    @staticmethod
    def _forget_scores(session: Session, trial: str, split: str | None = None) -> None:
        old = select(tables.Score.id).where(tables.Score.trial == trial)
        if split is not None:
            old = old.where(tables.Score.split == split)
        session.execute(delete(tables.Example).where(tables.Example.score.in_(old)))
        session.execute(delete(tables.Score).where(tables.Score.id.in_(old)))

    @staticmethod
    def _add_scores(session: Session, trial: str, scores: Mapping[str, SplitScore]) -> None:
        for split, score in scores.items():
            entry = tables.Score(trial=trial, split=split)
            session.add(entry)
            session.flush()
            session.add_all(tables.Example(score=entry.id, **values) for values in _columns(score))


def _make(path: Path) -> None:
    """Make an empty store, whole or not at all: SQLite makes its tables one by one."""
    new = path.with_name(NEW_NAME)
    with _told(path):
        for left in (new, new.with_name(f"{NEW_NAME}-journal")):
            left.unlink(missing_ok=True)
        engine = _engine(new, "rwc")
        tables.Table.metadata.create_all(engine)
        with Session(engine) as session, session.begin():
            session.add(tables.Meta(key="schema", value={"value": tables.SCHEMA}))
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


def _columns(score: SplitScore) -> Iterator[dict[str, Any]]:
    """Yield the stored values of each row of a score."""
    arrays = {name: getattr(score, name) for name in _EXAMPLE_COLUMNS}
    for index in range(len(score.row)):
        yield {k: None if each is None else each[index].item() for k, each in arrays.items()}


def _read_score(session: Session, score: int) -> SplitScore:
    wanted = [getattr(tables.Example, name) for name in _EXAMPLE_COLUMNS]
    query = select(*wanted).where(tables.Example.score == score).order_by(tables.Example.row)
    columns = zip(*session.execute(query).all(), strict=True)
    arrays: dict[str, Any] = {
        name: None if column[0] is None else np.array(column, dtype=_dtype(name))
        for name, column in zip(_EXAMPLE_COLUMNS, columns, strict=True)
    }
    return SplitScore(**arrays)


def _dtype(name: str) -> type:
    return np.float64 if name == "nll" else np.int64
