from pathlib import Path

import pytest

from loratlas.errors import StudyError
from loratlas.measure import task_index
from loratlas.measure.task_index import find_task


def test_a_task_is_found_in_its_file():
    assert find_task("gsm8k").name == "gsm8k.yaml"
    assert find_task("arc_easy").name == "arc_easy.yaml"
    # This one's file quotes its keys.
    assert find_task("mmlu_anatomy").parent.name == "default"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gsm8", "measures: lm_eval:gsm8: lm_eval knows no such task (did you mean gsm8k?)"),
        ("zzqqxxzz", "measures: lm_eval:zzqqxxzz: lm_eval knows no such task"),
        ("mmlu", "measures: lm_eval:mmlu is a group of tasks; name the tasks one by one"),
    ],
)
def test_what_is_no_task(name: str, message: str):
    with pytest.raises(StudyError) as caught:
        find_task(name)
    assert str(caught.value) == message


def test_without_lm_eval_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(task_index, "find_spec", lambda _: None)
    with pytest.raises(StudyError, match=r"needs the package lm_eval.*'loratlas\[eval\]'"):
        find_task("gsm8k")


def test_how_a_name_may_be_written(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("task: plain # comment\nmetric_list:\n  - task: not_this\n")
    (tmp_path / "b.yaml").write_text('"task": "in quotes (two)"\n')
    (tmp_path / "c.yaml").write_text("group: many\ntask:\n  - plain\n  - other\n")
    (tmp_path / "d.yaml").write_text("task: plain\n")
    tasks, groups = task_index._index(tmp_path)
    assert tasks == {"plain": tmp_path / "a.yaml", "in quotes (two)": tmp_path / "b.yaml"}
    assert groups == {"many": tmp_path / "c.yaml"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_it_knows_the_tasks_that_lm_eval_knows():
    from lm_eval.tasks import TaskManager

    theirs = TaskManager()
    tasks, groups = task_index._index(task_index._folder("any"))
    assert set(tasks) == set(theirs.all_subtasks)
    assert set(groups) >= set(theirs.all_groups)
    for name, path in tasks.items():
        assert theirs.task_index[name].yaml_path.resolve() == path.resolve()
