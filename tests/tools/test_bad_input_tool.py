"""Does the tool ask each case as a process of its own, and count what did not hold?"""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

from bad_input.case import Case, write
from bad_input.verdict import faults, message
from bad_input.world import environment

TOOL = Path(__file__).parents[2] / "tools" / "bad_input.py"
CASE = Case(
    name="a rank",
    given=write("study.yaml", "name: ../x\n"),
    asked=("run", "study.yaml"),
    says="study.yaml:1: name: ../x cannot be used",
)


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("bad_input_tool", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def world(tmp_path):
    (tmp_path / "world").mkdir()
    return tmp_path / "world"


def test_a_case_is_a_process(tool, world, tmp_path):
    outcome = tool.ask(CASE, world, tmp_path / "case", environment(tmp_path))
    assert faults(CASE, outcome) == []
    assert message(outcome).startswith("study.yaml:1: ")
    assert list(outcome.before) == ["study.yaml"]


def test_a_process_that_does_not_end_in_time(tool, world, tmp_path):
    case = replace(CASE, seconds=0.001)
    outcome = tool.ask(case, world, tmp_path / "case", environment(tmp_path))
    assert faults(case, outcome) == ["still running after 0.001 s"]


def test_a_process_without_the_leave_of_the_superuser(tool, world, tmp_path):
    def spoil(folder):
        (folder / "locked").mkdir(mode=0o555)

    asked = ("schema", "--out", "locked/schema.json")
    case = Case(name="read-only", given=spoil, asked=asked, says="denied", unprivileged=True)
    outcome = tool.ask(case, world, tmp_path / "case", environment(tmp_path))
    assert outcome.code == 2
    assert message(outcome).endswith("locked/schema.json: cannot be written: Permission denied")
    assert faults(replace(case, says="Permission denied"), outcome) == []


def test_the_table_survives_what_is_said(tool):
    tried = [
        tool.Tried(name="a | in a name", exit="2", said="left | right `x`"),
        tool.Tried(name="</script>", exit="0", said="", faults=["a traceback"]),
    ]
    text = tool.markdown(tried)
    assert "**2 tried, 1 held.**" in text
    assert "| a \\| in a name | 2 | `left \\| right 'x'` |" in text
    assert "| &lt;/script> | 0 |  |" in text
