"""How a trial becomes a run of MLflow."""

import os
import re
import time
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from loratlas.study.tracking.tracked import TrackedTrial

_ID_TAG = "loratlas.run_id"
_METRICS_A_REQUEST = 1000
"""MLflow takes no more at once."""
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_.:/ -]")
"""MLflow refuses such letters, and the figures of a task may have a comma in their names."""


def send(trial: TrackedTrial, folder: Path) -> None:
    """Make one run: settings as its parameters, losses and figures as its metrics."""
    client = MlflowClient()
    experiment = _experiment(client, folder)
    for left in client.search_runs([experiment], f"tags.`{_ID_TAG}` = '{trial.run_id}'"):
        client.delete_run(left.info.run_id)  # a sending that was broken off
    tags = {_ID_TAG: trial.run_id, "loratlas.status": trial.status}
    run = client.create_run(experiment, run_name=trial.name, tags=tags).info.run_id
    settings = {name: str(value) for name, value in trial.settings.items()}
    # MLflow bounds a parameter, and an error may be long; a tag takes more.
    error = settings.pop("error", None)
    client.log_batch(
        run,
        params=[Param(name, value) for name, value in settings.items()],
        tags=[] if error is None else [RunTag("loratlas.error", error)],
    )
    metrics = _metrics(trial)
    for start in range(0, len(metrics), _METRICS_A_REQUEST):
        client.log_batch(run, metrics=metrics[start : start + _METRICS_A_REQUEST])
    client.set_terminated(run, status="FINISHED" if trial.status == "done" else "FAILED")


def _metrics(trial: TrackedTrial) -> list[Metric]:
    now = int(time.time() * 1000)
    losses = [
        Metric("train/loss", loss, now, step) for step, loss in enumerate(trial.losses, start=1)
    ]
    last = len(trial.losses)
    figures = [
        Metric(_NOT_IN_A_NAME.sub("_", name), value, now, last)
        for name, value in trial.figures.items()
    ]
    return losses + figures


def _experiment(client: MlflowClient, folder: Path) -> str:
    """Return the experiment that the environment names, made if it is missing."""
    if given := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return given
    name = os.environ["MLFLOW_EXPERIMENT_NAME"]
    if found := client.get_experiment_by_name(name):
        return str(found.experiment_id)
    # A server knows where its artifacts go; a database in the run folder has them beside it.
    is_here = str(folder) in os.environ["MLFLOW_TRACKING_URI"]
    artifacts = (folder / "artifacts").as_uri() if is_here else None
    return str(client.create_experiment(name, artifact_location=artifacts))
