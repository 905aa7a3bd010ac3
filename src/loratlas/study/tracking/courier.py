"""How trials reach one tracker while the study goes on: a thread that waits in its stead."""

import logging
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

from loratlas.study.tracking.marks import read_marks
from loratlas.study.tracking.process import NoAnswerError, TrackerProcess
from loratlas.study.tracking.tracked import TrackedTrial
from loratlas.study.tracking.trackers import Tracker

log = logging.getLogger(__name__)

_FAILURES_IN_A_ROW = 3
"""After so many a tracker is out of reach, and is left alone until the next run."""


class Courier:
    """Brings trials to one tracker, in the order in which they ended.

    Args:
        name: the tracker.
        folder: its folder inside the run folder.
        process: what sends a trial.
    """

    def __init__(self, name: Tracker, folder: Path, process: TrackerProcess) -> None:
        self.name = name
        self.taken: set[str] = set()
        self.failed: set[str] = set()
        self.last_error: str | None = None
        self._marks = read_marks(folder)
        self._process = process
        self._queue: SimpleQueue[TrackedTrial | None] = SimpleQueue()
        # A daemon: whatever a tracker does, the command can end.
        self._thread = Thread(target=self._deliver_all, name=f"to {name}", daemon=True)
        self._failures = 0
        self._given_up = False

    def has(self, trial: TrackedTrial) -> bool:
        """Whether a trial, as it stands now, was sent already or waits to be."""
        return trial.mark in self._marks

    def take(self, trial: TrackedTrial) -> None:
        """Accept a trial; returns at once."""
        if not self.taken:
            self._thread.start()
        self.taken.add(trial.run_id)
        self._marks.add(trial.mark)
        self._queue.put(trial)

    def close(self, timeout_s: float) -> bool:
        """Wait for the trials that were taken; return whether all were tried."""
        if not self.taken:
            return True
        self._queue.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def stop(self, why: str) -> None:
        """Give up what is not sent yet."""
        if not self.taken:
            return
        self._given_up = True
        self._queue.put(None)
        self._process.end(why)
        self._thread.join()

    def _deliver_all(self) -> None:
        while (trial := self._queue.get()) is not None:
            if self._given_up:
                self.failed.add(trial.run_id)
            else:
                self._deliver(trial)
        self._process.close()

    def _deliver(self, trial: TrackedTrial) -> None:
        out_of_reach = False
        try:
            error = self._process.send(trial)
        except NoAnswerError as no_answer:
            error, out_of_reach = str(no_answer), True
        if error is None:
            self._failures = 0
            self.failed.discard(trial.run_id)
            return
        log.warning("%s: %s was not mirrored: %s", self.name, trial.name, error)
        self.last_error = error
        self.failed.add(trial.run_id)
        self._failures += 1
        self._given_up |= out_of_reach or self._failures == _FAILURES_IN_A_ROW
