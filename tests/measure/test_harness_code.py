"""Figures of tasks are computed by what is installed; no program of the hub is fetched for one."""

import json

import pytest

from loratlas.errors import StudyError
from loratlas.measure.harness import prepare_task
from loratlas.measure.harness_task import harness_quiet
from loratlas.measure.measures import TaskMeasure


def refused(task, row, base, root):
    (root / "rows.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(StudyError) as caught:
        prepare_task(TaskMeasure(task=f"lm_eval:{task}", source="rows.jsonl"), base, root=root)
    return str(caught.value)


def test_a_figure_that_only_the_hub_knows(base, tmp_path):
    row = {"sentence": "Ada in Oslo", "target": "__label__meta_zero"}
    assert refused("polemo2_in", row, base, tmp_path) == (
        "measures: lm_eval:polemo2_in: a figure of it is computed by a program of the hub (f1), "
        "which is never run"
    )


def test_a_task_whose_own_code_asks_the_hub(base, tmp_path):
    assert refused("humaneval", {"prompt": "?"}, base, tmp_path) == (
        "measures: lm_eval:humaneval cannot be read: a figure of it is computed by a program of "
        "the hub (code_eval), which is never run"
    )


def test_a_program_beside_a_study_is_not_run_either(tmp_path, monkeypatch):
    import evaluate

    (tmp_path / "metric").mkdir()
    (tmp_path / "metric" / "metric.py").write_text("open('has-run', 'w').close()")
    monkeypatch.chdir(tmp_path)
    with harness_quiet(), pytest.raises(StudyError, match="which is never run"):
        evaluate.load("metric")
    assert not (tmp_path / "has-run").exists()
