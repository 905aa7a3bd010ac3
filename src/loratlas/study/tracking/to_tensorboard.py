"""How a trial becomes a run of TensorBoard: a folder with one file of events."""

import os
import shutil
import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from loratlas.study.tracking.tracked import TrackedTrial


def send(trial: TrackedTrial, _folder: Path) -> None:
    """Make one run: settings as hyperparameters, losses and figures as scalars (in fp32)."""
    safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in trial.name)
    place = Path(os.environ["TENSORBOARD_LOGGING_DIR"], trial.study, f"{safe}-{trial.run_id}")
    if place.exists():  # a sending that was broken off
        shutil.rmtree(place)
    writer = EventFileWriter(str(place))
    now, last = time.time(), len(trial.losses)
    hyperparameters = hparams_pb(trial.settings, trial_id=trial.run_id, start_time_secs=now)
    writer.add_event(Event(wall_time=now, summary=hyperparameters))
    for step, loss in enumerate(trial.losses, start=1):
        writer.add_event(_scalar("train/loss", loss, step, now))
    for name, value in trial.figures.items():
        writer.add_event(_scalar(name, value, last, now))
    writer.close()


def _scalar(tag: str, value: float, step: int, now: float) -> Event:
    summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
    return Event(wall_time=now, step=step, summary=summary)
