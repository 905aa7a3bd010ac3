"""Letters that turn a line around, or that a terminal obeys, in every text form of a report."""

import re
from contextlib import closing

import pytest
from made_up import Shape, make_run

from loratlas.report.document.contents import contents
from loratlas.report.document.facts import gather
from loratlas.report.document.latex import latex
from loratlas.report.document.markdown import markdown
from loratlas.report.document.page import page
from loratlas.report.document.pictures import _on_paper, drawn
from loratlas.study.folder import open_run

TURNED, SEEN = "a\u202egpj.exe", r"a\u202egpj.exe"
HOSTILE = Shape(
    names=("full", TURNED, "../../etc/x", "</script>"),
    errors=("\x1b[2J\u2066\u200b",),
    warnings=(TURNED,),
    model=f"tiny{TURNED}",
    rows=10,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = make_run(tmp_path_factory.mktemp("hostile") / "run", HOSTILE)
    (folder / "study.yaml").write_text(f"name: tiny  # {TURNED}\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def sections(run):
    with closing(open_run(run)) as store:
        return contents(gather(run, store))


def odd(text: str) -> set[str]:
    return {letter for letter in text if not letter.isprintable() and letter not in "\n\t"}


def test_the_page(sections):
    head = {"title": TURNED, "headline": TURNED, "chips": [TURNED], "version": "1"}
    text = page(head, sections)
    shown, _, scripts = text.partition('<script type="application/json" id="charts">')
    assert odd(shown) == set()
    assert SEEN in shown
    data = scripts.partition("</script>")[0]
    # JSON has the letter itself as an escape, and the text of an escape with two backslashes.
    assert r"\\u202egpj" in data
    assert re.search(r"(?<!\\)\\u202e", data) is None


def test_the_words_and_the_tables(sections):
    words = markdown(TURNED, TURNED, sections)
    assert odd(words) == set()
    assert r"a\\u202egpj.exe" in words
    tables = latex(sections)
    assert odd(tables) == set()
    assert r"a\textbackslash{}u202egpj.exe" in tables


def test_the_pictures(sections):
    charts = list(drawn(sections))
    assert any(SEEN in str(_on_paper(chart.spec)).replace("\\\\", "\\") for chart in charts)
    assert not any("\u202e" in str(_on_paper(chart.spec)) for chart in charts)


def test_no_name_of_a_person_is_the_name_of_a_picture(sections):
    stems = [chart.stem for section in sections for f in section.figures for chart in f.charts]
    assert len(stems) > 8
    assert [stem for stem in stems if not re.fullmatch(r"[a-z][a-z_0-9-]*", stem)] == []
