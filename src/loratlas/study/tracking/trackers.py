"""Which trackers there are, whether they are installed, and where they write by default."""

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from loratlas.errors import StudyError

Tracker = Literal["wandb", "mlflow", "tensorboard", "trackio"]
"""The name of a tracker is that of its package and of the extra that installs it."""


def require_installed(trackers: Iterable[Tracker], study: Path) -> None:
    """Refuse a tracker whose package is not there.

    Raises:
        StudyError: naming the extra that brings it.
    """
    for name in trackers:
        found = find_spec(name)
        # Without an origin it is a folder of that name: W&B makes one where it is used.
        if found is None or found.origin is None:
            raise StudyError(
                f"{study}: track: {name} is not installed; pip install 'loratlas[{name}]'"
            )


def default_environment(name: Tracker, folder: Path, study: str) -> dict[str, str]:
    """Return what a tracker is told through its own variables, where a person says nothing.

    Args:
        name: the tracker.
        folder: its folder inside the run folder, absolute.
        study: name of the study: the project, or experiment, that the runs belong to.
    """
    match name:
        case "wandb":
            return {
                "WANDB_MODE": "offline",
                "WANDB_DIR": str(folder),
                "WANDB_PROJECT": study,
                "WANDB_SILENT": "true",
                "WANDB_CONSOLE": "off",
                "WANDB_ERROR_REPORTING": "false",
            }
        case "mlflow":
            return {
                "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
                "MLFLOW_EXPERIMENT_NAME": study,
                "MLFLOW_DISABLE_TELEMETRY": "true",
            }
        case "tensorboard":
            return {"TENSORBOARD_LOGGING_DIR": str(folder)}
        case "trackio":
            return {"TRACKIO_DIR": str(folder)}
