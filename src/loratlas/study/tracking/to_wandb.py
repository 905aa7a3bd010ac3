"""How a trial becomes a run of Weights & Biases."""

import os
import shutil
from pathlib import Path

import wandb

from loratlas.study.tracking.tracked import TrackedTrial

# What W&B gathers by itself belongs to the process that mirrors, not to the trial.
_SETTINGS = wandb.Settings(
    disable_code=True,
    disable_git=True,
    disable_job_creation=True,
    x_disable_machine_info=True,
    x_disable_meta=True,
    x_disable_stats=True,
    x_save_requirements=False,
)


def send(trial: TrackedTrial, _folder: Path) -> None:
    """Make one run: settings as its config, losses as its history, figures as its summary."""
    _forget(trial)
    run = wandb.init(
        project=os.environ["WANDB_PROJECT"],
        group=os.environ.get("WANDB_RUN_GROUP", trial.placement),
        id=trial.run_id,
        name=trial.name,
        tags=[trial.status],
        config=trial.settings,
        settings=_SETTINGS,
    )
    for step, loss in enumerate(trial.losses, start=1):
        run.log({"train/loss": loss}, step=step)
    run.summary.update(trial.figures)
    run.finish(exit_code=0 if trial.status == "done" else 1)


def _forget(trial: TrackedTrial) -> None:
    """Remove what an earlier sending left, which cannot go on."""
    for left in (Path(os.environ["WANDB_DIR"]) / "wandb").glob(f"*run-*-{trial.run_id}"):
        shutil.rmtree(left)
