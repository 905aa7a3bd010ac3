"""Where are faults staged: fresh folders with a study, and the numbers that it should come to."""

import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from faults.command import Command, MissedError
from faults.numbers import Numbers, numbers
from faults.studies import STUDIES

STUDY, RUN = "study.yaml", "run"
_AROUND = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
_NUM_ROWS = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Undisturbed:
    """A run that nobody disturbed.

    Attributes:
        folder: in which it lies.
        numbers: what it holds.
        seconds: how long the command lived.
    """

    folder: Path
    numbers: Numbers
    seconds: float


class World:
    """A folder for everything that is staged.

    Args:
        root: an empty folder; made when it is missing.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._root.mkdir(parents=True, exist_ok=True)
        self._undisturbed: dict[str, Undisturbed] = {}
        self._turns = {study: Lock() for study in STUDIES}
        self._turn = Lock()
        self._num_folders = 0

    @property
    def environment(self) -> dict[str, str]:
        """The variables of every command: offline, one thread, caches of its own."""
        kept = {name: value for name, value in os.environ.items() if name != "LORATLAS_WORKERS"}
        caches = {name: str(self._root / name) for name in ("HF_HOME", "LORATLAS_CACHE")}
        return {**kept, **_AROUND, **caches}

    def folder(self, name: str) -> Path:
        """Return a new, empty folder."""
        with self._turn:
            self._num_folders += 1
            folder = self._root / f"{self._num_folders:03d}-{name}"
        folder.mkdir()
        return folder

    def lay_out(self, study: str, folder: Path) -> None:
        """Put a study and what it reads into a folder."""
        (folder / STUDY).write_text(STUDIES[study], encoding="utf-8")
        if study == "local":
            _lay_out_files(folder)

    def undisturbed(self, study: str) -> Undisturbed:
        """Return what a study comes to when nobody disturbs it; found out once."""
        with self._turns[study]:
            if study not in self._undisturbed:
                self._undisturbed[study] = self._run(study)
            return self._undisturbed[study]

    def _run(self, study: str) -> Undisturbed:
        folder = self.folder(f"{study}-undisturbed")
        self.lay_out(study, folder)
        began = time.monotonic()
        with Command(run_arguments(), folder=folder, environment=self.environment) as command:
            if command.wait() != 0:
                raise MissedError(f"the study {study} does not run at all: {command.said[-3:]}")
        seconds = time.monotonic() - began
        return Undisturbed(folder=folder, numbers=numbers(folder / RUN), seconds=seconds)


def run_arguments(*options: str, study: str = STUDY, out: str = RUN) -> list[str]:
    """Return the arguments that carry out the study of a folder."""
    probes = [] if "--probe" in options else ["--no-probe"]
    checkpoints = [] if "--checkpoint" in options else ["--checkpoint", "0"]
    return ["run", study, "--out", out, "--pack", "4", *probes, *checkpoints, *options]


def with_code(folder: Path, environment: Mapping[str, str], code: str) -> dict[str, str]:
    """Return an environment in which every Python process begins with some code."""
    place = folder / "injected"
    place.mkdir(exist_ok=True)
    (place / "sitecustomize.py").write_text(code, encoding="utf-8")
    path = [str(place), *filter(None, [environment.get("PYTHONPATH")])]
    return {**environment, "PYTHONPATH": os.pathsep.join(path)}


def _lay_out_files(folder: Path) -> None:
    from loratlas.bundled import demo_model_folder
    from loratlas.data.demo.tasks import rows

    shutil.copytree(demo_model_folder("demo:gpt2"), folder / "model")
    lines = [json.dumps(row) for row in rows("facts", "train")[:_NUM_ROWS]]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
