import importlib
import re
import sys
from pathlib import Path

import pytest

from loratlas.placement import lints
from loratlas.placement.rules import parse
from loratlas.study import sections

TOOLS = Path(__file__).parents[2] / "tools"
UP_TO_DATE = "run .venv/bin/python tools/make_reference.py"


@pytest.fixture(scope="module")
def tool():
    sys.path.insert(0, str(TOOLS))
    try:
        yield importlib.import_module("make_reference")
    finally:
        sys.path.remove(str(TOOLS))
        for name in ("make_reference", "reference_text"):
            sys.modules.pop(name, None)


def test_the_pages_say_what_the_code_says(tool):
    assert tool.outdated() == [], UP_TO_DATE


def test_check_writes_nothing_and_exits_1_when_a_page_differs(tool, tmp_path, capsys):
    assert tool.run(["--check"], tmp_path) == 1
    assert list(tmp_path.iterdir()) == []
    assert "commands.md: is out of date; run tools/make_reference.py" in capsys.readouterr().out

    assert tool.run([], tmp_path) == 0
    assert tool.run(["--check"], tmp_path) == 0
    page = tmp_path / "rules.md"
    page.write_text(page.read_text().replace("feed_forward", "feedforward"))
    assert tool.outdated(tmp_path) == ["rules.md"]


def test_two_runs_make_the_same_pages(tool):
    assert tool.pages() == tool.pages()


@pytest.mark.parametrize("page", ["commands.md", "study-file.md", "rules.md", "errors.md"])
def test_no_cell_of_a_table_is_without_a_sentence(tool, page):
    rows = [line for line in tool.pages()[page].splitlines() if line.startswith("|")]
    assert rows
    assert [row for row in rows if row.endswith("|  |")] == []


def test_every_form_that_the_rules_page_shows_can_be_read(tool):
    for form in tool.FORMS:
        assert parse(form)


def test_every_key_of_a_study_file_is_on_its_page(tool):
    page = tool.pages()["study-file.md"]
    for section in tool._SECTIONS:
        for key in section.model_fields:
            assert f"| `{key}` |" in page
    known = set(sections.Fields.__subclasses__())
    assert known == set(tool._SECTIONS), "a section of the study file has no heading"


def test_the_rules_page_lists_every_warning(tool):
    page = tool.pages()["rules.md"]
    folder = Path(lints.__file__).parent
    for path in [*folder.glob("*lints.py"), *folder.glob("*pitfalls.py")]:
        for code in re.findall(r'code="([a-z-]+)"', path.read_text()):
            assert f"| `{code}` |" in page
    codes = [code for code, _ in tool._lint_codes("*lints.py")]
    assert len(set(codes)) == len(codes)
