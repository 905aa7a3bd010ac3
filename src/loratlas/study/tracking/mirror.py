"""How a run's stored trials come to stand in experiment trackers as well.

A mirror, never the source of truth: it reads records that are stored, it never makes the study
wait while trials run, and whatever goes wrong in it is a sentence at the end.
"""

import os
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from loratlas.errors import TrialError
from loratlas.study.progress import Listener
from loratlas.study.records import TrialRecord
from loratlas.study.spec import StudySpec
from loratlas.study.store import Store
from loratlas.study.tracking.courier import Courier
from loratlas.study.tracking.process import TrackerProcess
from loratlas.study.tracking.stored import tracked_trial
from loratlas.study.tracking.trackers import Tracker, default_environment

LIMIT_S = 120.0
"""Seconds that one trial may take to reach a tracker; the first one pays for its import."""
LAST_WAIT_S = 300.0
"""Seconds that a run waits for its trackers when its trials have ended."""
_UNSPOKEN_WAIT_S = 2.0
_RUN_KEY = "tracking_run"


class Mirror:
    """Sends the trials of a run to the trackers that the study names, while it is open.

    Leaving it waits for what is on its way and says what did not arrive; when the run is broken
    off, what is on its way is given up.

    Args:
        study: the study; without `track` nothing happens.
        store: where its trials are kept.
        folder: the run folder.
        listener: hears of trials that were not mirrored.
    """

    def __init__(self, study: StudySpec, store: Store, folder: Path, listener: Listener) -> None:
        self._study = study
        self._store = store
        self._listener = listener
        self._couriers = [
            _courier(name, folder.absolute() / "tracking" / name, study.name)
            for name in study.track
        ]
        self._run = _own_name(store) if study.track else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        try:
            # A measure that failed is said after all else was done.
            if kind is None or issubclass(kind, TrialError):
                self.add(self._store.trials().values())  # measures came after the trials
                self._finish()
        finally:
            for courier in self._couriers:
                courier.stop("the run was broken off")

    def add(self, records: Iterable[TrialRecord]) -> None:
        """Send stored trials to every tracker that does not have them; returns at once."""
        for record in records if self._couriers else ():
            trial = tracked_trial(
                self._store,
                record,
                study=self._study.name,
                model=self._study.model.name,
                run=self._run,
            )
            for courier in self._couriers:
                if not courier.has(trial):
                    courier.take(trial)

    def _finish(self) -> None:
        end = time.monotonic() + LAST_WAIT_S
        late = [courier for courier in self._couriers if not courier.close(_UNSPOKEN_WAIT_S)]
        if late:
            self._listener.say(f"waiting for {', '.join(courier.name for courier in late)}")
        for courier in late:
            if not courier.close(max(0.0, end - time.monotonic())):
                courier.stop(f"not all were sent within {LAST_WAIT_S:g} seconds")
        for courier in self._couriers:
            if courier.failed:
                self._listener.say(
                    f"{courier.name}: {len(courier.failed)} of {len(courier.taken)} trials were "
                    f"not mirrored: {courier.last_error}; no result is touched by it, and the "
                    "next run tries again"
                )


def _courier(name: Tracker, folder: Path, study: str) -> Courier:
    given = {name: value for name, value in os.environ.items() if value}
    environment = default_environment(name, folder, study) | given
    return Courier(name, folder, TrackerProcess(name, folder, environment, LIMIT_S))


def _own_name(store: Store) -> str:
    """Return what tells this run folder from every other, wherever it is moved."""
    name: str | None = store.meta(_RUN_KEY)
    if name is None:
        name = uuid.uuid4().hex
        store.set_meta(_RUN_KEY, name)
    return name
