"""How is what came out of a measure beside the loss written, read and dropped?"""

from collections.abc import Iterator
from dataclasses import asdict

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from loratlas.measure.answers import Answer, TaskScore
from loratlas.measure.scores import SplitScore
from loratlas.study import tables
from loratlas.study.records import MeasurementRecord


def write(
    session: Session, trial: str, measure: str, digest: str, found: TaskScore | SplitScore
) -> None:
    """Keep a measurement with its answers; the rows of a scored text are kept as a split."""
    record = _record(digest, found)
    entry = tables.Measurement(trial=trial, measure=measure, digest=digest, content=asdict(record))
    session.add(entry)
    session.flush()
    answers = found.answers if isinstance(found, TaskScore) else ()
    session.add_all(tables.Answer(measurement=entry.id, **_columns(answer)) for answer in answers)


def read(session: Session, trial: str) -> dict[str, MeasurementRecord]:
    """Return the measurements of a trial by the name of their measure."""
    found = session.scalars(select(tables.Measurement).where(tables.Measurement.trial == trial))
    return {row.measure: MeasurementRecord(**row.content) for row in found}


def answers(session: Session, trial: str, measure: str) -> Iterator[Answer]:
    """Yield the answers of a task in the order of its questions."""
    found = session.scalars(
        select(tables.Answer)
        .join(tables.Measurement, tables.Answer.measurement == tables.Measurement.id)
        .where(tables.Measurement.trial == trial, tables.Measurement.measure == measure)
        .order_by(tables.Answer.question)
    )
    for row in found:
        yield Answer(
            question=row.question,
            prompt_digest=row.prompt_digest,
            truncated=row.truncated,
            text=row.text,
            log_likelihoods=tuple(row.log_likelihoods),
            extracted=row.extracted,
            metrics=row.metrics,
        )


def forget(session: Session, trial: str, measure: str | None = None) -> None:
    """Drop the measurements of a trial, or one of them."""
    old = select(tables.Measurement.id).where(tables.Measurement.trial == trial)
    if measure is not None:
        old = old.where(tables.Measurement.measure == measure)
    session.execute(delete(tables.Answer).where(tables.Answer.measurement.in_(old)))
    session.execute(delete(tables.Measurement).where(tables.Measurement.id.in_(old)))


def _record(digest: str, found: TaskScore | SplitScore) -> MeasurementRecord:
    if isinstance(found, SplitScore):
        return MeasurementRecord(digest=digest, num_questions=len(found.row))
    return MeasurementRecord(
        digest=digest,
        num_questions=len(found.answers),
        num_truncated=found.num_truncated,
        metrics=dict(found.metrics),
        seconds=found.seconds,
    )


def _columns(answer: Answer) -> dict[str, object]:
    columns = asdict(answer)
    columns["log_likelihoods"] = list(answer.log_likelihoods)
    return columns
