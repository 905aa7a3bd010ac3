"""Does the page about trackers say what they are told, and which variables they know?"""

import re
from pathlib import Path
from typing import get_args

import pytest

from loratlas.study.spec import parse_study
from loratlas.study.tracking import courier, mirror
from loratlas.study.tracking.tracked import TrackedTrial
from loratlas.study.tracking.trackers import Tracker, default_environment

from .conftest import REPOSITORY, blocks

PAGE = REPOSITORY / "docs" / "tracking.md"
QUIET = {"WANDB_SILENT", "WANDB_CONSOLE", "WANDB_ERROR_REPORTING", "MLFLOW_DISABLE_TELEMETRY"}
"""Variables that are set for the sake of a mirror, and that nobody needs to read of."""


@pytest.fixture
def page() -> str:
    return " ".join(PAGE.read_text().split())


def test_the_study_on_the_page_can_be_read():
    [block] = blocks(PAGE, "yaml")
    assert parse_study(block.text, Path(str(block))).track == get_args(Tracker)


@pytest.mark.parametrize("name", get_args(Tracker))
def test_every_variable_with_a_default_is_on_the_page(name):
    [row] = re.findall(rf"^\| `{name}` \|.*$", PAGE.read_text(), re.MULTILINE)
    defaults = default_environment(name, Path("RUN") / "tracking" / name, "quick")
    assert [v for v in defaults.keys() - QUIET if f"`{v}`" not in row] == []
    [place] = [value for value in defaults.values() if "RUN" in value]
    assert place.removeprefix("sqlite:///") in row


def test_every_setting_and_limit_is_on_the_page(page):
    trial = TrackedTrial(
        run_id="r",
        digest="d",
        attempt=1,
        study="s",
        model="m",
        placement="p",
        same_as=["q"],
        rule="all",
        trainable_parameters=1,
        learning_rate=1e-3,
        seed=0,
        status="failed",
        error="e",
        losses=[],
        figures={},
    )
    settings = {name.replace("_", " ") for name in trial.settings} - {"same as", "trial"}
    assert [name for name in settings if name not in page] == []
    assert f"more than {mirror.LIMIT_S:g} seconds for one trial" in page
    assert mirror.LAST_WAIT_S == 5 * 60
    assert "at most five minutes" in page
    assert courier._FAILURES_IN_A_ROW == 3
    assert "after three in a row" in page
