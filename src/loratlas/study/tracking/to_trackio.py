"""How a trial becomes a run of Trackio."""

import warnings
from pathlib import Path

import trackio

from loratlas.study.tracking.tracked import TrackedTrial


def send(trial: TrackedTrial, _folder: Path) -> None:
    """Make one run: settings as its config, losses step by step, figures at the last one.

    Raises:
        RuntimeError: Trackio warned that something was not kept; it raises nothing then.
    """
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        _forget(trial)
        run = trackio.init(
            trial.study,
            name=trial.name,
            group=trial.placement,
            config={**trial.settings, "run_id": trial.run_id},
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )
        for step, loss in enumerate(trial.losses, start=1):
            run.log({"train/loss": loss}, step=step)
        run.log(dict(trial.figures), step=len(trial.losses))
        run.finish()
    of_trackio = [str(warning.message) for warning in said if "rackio" in str(warning.message)]
    if of_trackio:
        raise RuntimeError(of_trackio[0])


def _forget(trial: TrackedTrial) -> None:
    """Remove what an earlier sending left in the local database, which was broken off."""
    try:
        runs = list(trackio.Api().runs(trial.study))
    except ValueError:  # no such project yet
        return
    for run in runs:
        if (run.config or {}).get("run_id") == trial.run_id:
            run.delete()
