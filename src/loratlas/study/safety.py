"""What keeps a run's work from being lost: claims, checkpoints, and stops between steps."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from loratlas.study.circumstances import MOST_DEATHS, Circumstances
from loratlas.study.options import RunOptions
from loratlas.train.checkpoint import Checkpoints, Keeper, StopRequested

_FOLDER = "checkpoints"


def heed(stop: Callable[[], bool]) -> None:
    """Stop here if a person asked for it.

    Raises:
        StopRequested: somebody did.
    """
    if stop():
        raise StopRequested


@dataclass(frozen=True, kw_only=True, slots=True)
class Safety:
    """What keeps the trials of one run.

    Attributes:
        folder: of the run's checkpoints.
        every_seconds: time between two of them.
        stop: whether a person asked for a stop.
        deaths: what ended the processes that had a trial under way, by its digest.
        owner: whose attempts these are.
    """

    folder: Path
    every_seconds: float
    stop: Callable[[], bool]
    deaths: Mapping[str, Sequence[str]]
    owner: str

    @classmethod
    def of(cls, run: Path, options: RunOptions, around: Circumstances) -> Self:
        """Return what keeps the trials of a run in a folder."""
        return cls(
            folder=run / _FOLDER,
            every_seconds=options.checkpoint_seconds,
            stop=around.stop,
            deaths=around.deaths,
            owner=around.owner,
        )

    def keeper(self, number: int, trials: Sequence[str], of: Mapping[str, Any]) -> Keeper:
        """Return what keeps the state of a pack.

        Args:
            number: of the pack.
            trials: their digests, in order.
            of: what else its numbers may depend on; a checkpoint of anything else does not count.
        """
        return Keeper(
            checkpoints=Checkpoints(
                self.folder / f"pack-{number:04d}", {"trials": list(trials), **of}
            ),
            every_seconds=self.every_seconds,
            stop=self.stop,
        )

    def why_given_up(self, trials: Sequence[str]) -> str | None:
        """Return why trials are not begun once more, None where they are."""
        found = max((self.deaths.get(trial, ()) for trial in trials), key=len, default=())
        if len(found) < MOST_DEATHS:
            return None
        return f"its process was ended {len(found)} times: {', '.join(found)}"

    def clear(self) -> None:
        """Take away what no trial needs any more."""
        shutil.rmtree(self.folder, ignore_errors=True)
