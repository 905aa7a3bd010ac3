"""Where does a case happen: a folder with a model, rows, a study file, scores and an adapter."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import tiny_study
from bad_input.case import Case

COMMAND = (sys.executable, "-m", "loratlas")
RUN_FOLDER = "run"
ADAPTER = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["c_attn", "c_proj"]}
_QUIETLY = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}


def build(folder: Path) -> None:
    """Make the world in an empty folder; relative paths in it start there."""
    tiny_study.write_model(folder / "model")
    tiny_study.write_study(folder, "model")
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(ADAPTER))
    (folder / "scores.json").write_text(json.dumps(_scores(folder / "model")))


def finish(folder: Path, environment: dict[str, str]) -> None:
    """Carry out the study of a world, into `RUN_FOLDER`."""
    asked = [*COMMAND, "run", "study.yaml", "--out", RUN_FOLDER, "--no-probe"]
    subprocess.run(asked, cwd=folder, env=environment, check=True, capture_output=True)


def lay_out(world: Path, folder: Path, case: Case) -> None:
    """Copy the world into a new folder and spoil it as a case wants it."""
    left_out = () if case.finished else (RUN_FOLDER,)
    shutil.copytree(world, folder, ignore=shutil.ignore_patterns(*left_out))
    case.given(folder)


def environment(private: Path) -> dict[str, str]:
    """Return the environment of a command: offline, with caches in a folder of its own."""
    folders = {"HF_HOME": str(private / "hub"), "LORATLAS_CACHE": str(private / "cache")}
    return {**os.environ, **_QUIETLY, **folders}


def _scores(model: Path) -> dict[str, object]:
    """Return scores of the sites inside the blocks, each by its place."""
    # Imported here: reading a model for the first time loads torch.
    from loratlas.allocate.table import ScoreTable, ScoringCost, SiteScore
    from loratlas.anatomy.read import read

    anatomy = read(model, cache=False)
    inside = [site for site in anatomy.sites if site.in_block]
    return ScoreTable(
        method="by_hand",
        unit="1",
        higher_is_better=True,
        model="model",
        anatomy_digest=anatomy.digest,
        cost=ScoringCost(num_forwards=8),
        scores=tuple(
            SiteScore(path=site.path, value=1.0 + place) for place, site in enumerate(inside)
        ),
    ).to_json()
