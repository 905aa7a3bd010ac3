"""What a study file may ask of trackers, and what it is told."""

import tomllib
from pathlib import Path
from typing import get_args

import pytest

from loratlas.cli.main import main
from loratlas.errors import StudyError
from loratlas.study.tracking import trackers
from loratlas.study.tracking.trackers import Tracker, require_installed

from .conftest import tracked_study

REPOSITORY = Path(__file__).parents[3]


def test_trackers_are_no_part_of_what_a_study_is():
    assert tracked_study("wandb", "trackio").track == ("wandb", "trackio")
    assert tracked_study().track == ()
    assert tracked_study("wandb").digest == tracked_study().digest


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "wandbb",
            "5: track[0]: wandbb is not known (did you mean wandb?); allowed: wandb, mlflow",
        ),
        ("mlflow, mlflow", "5: track: mlflow is given twice"),
    ],
)
def test_what_is_no_tracker_is_refused(given, message):
    with pytest.raises(StudyError) as caught:
        tracked_study(given)
    assert f"study.yaml:{message}" in str(caught.value)


def test_a_package_that_is_missing_is_named_before_anything_is_spent(
    study_folder, monkeypatch, capsys
):
    monkeypatch.setattr(trackers, "find_spec", lambda _name: None)
    study, run = study_folder / "study.yaml", study_folder / "run"
    study.write_text(study.read_text() + "track: [mlflow]\n")
    with pytest.raises(SystemExit) as end:
        main(["run", str(study), "--out", str(run)])
    assert end.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "track: mlflow is not installed; pip install 'loratlas[mlflow]'" in said
    assert not run.exists()


def test_a_folder_of_a_package_s_name_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "loratlas_no_such_tracker").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(StudyError, match="is not installed"):
        require_installed(["loratlas_no_such_tracker"], tmp_path)


def test_every_tracker_is_installed_and_has_an_extra():
    names = get_args(Tracker)
    require_installed(names, Path("study.yaml"))
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert set(names) <= project["optional-dependencies"].keys()
