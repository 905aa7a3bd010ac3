"""Is text that came in with a name shown, and never obeyed, in LaTeX, Markdown and CSV?"""

import csv
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from loratlas.report.document import latex, markdown
from loratlas.report.document.exports import write_csv

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "$x_1$ & 50% of #2 ~ {a}^b \\input{/etc/passwd}",
    "[here](http://example.org) ![i](x.png) `code` *a* _b_ ~~c~~",
    "http://example.org/a_b",
    "a | b",
    "# no heading",
    "1. no list",
    "- no list",
    "> no quotation",
    "---",
    "two\nlines\r\nand a tab\t",
    "--max-parameters",
]
_COMMAND = re.compile(r"\\(?:[a-zA-Z]+\{\}|[{}$&#%_])")


def shown(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("text", HOSTILE)
def test_latex_has_no_letter_with_a_meaning_left(text):
    left = _COMMAND.sub("", latex.escaped(text)).replace("-{}-", "--")
    assert not set(left) & set('\\{}$&#%_~^<>|"\n\r\t')


@given(st.text())
def test_latex_keeps_braces_balanced_on_one_line(text):
    bare = re.sub(r"\\[{}]", "", latex.escaped(text))
    depth = 0
    for letter in bare:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        assert depth >= 0
    assert depth == 0
    assert len(bare.splitlines()) <= 1


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_shows_a_paragraph_as_it_stands(text):
    reader = MarkdownIt("gfm-like", {"linkify": False})
    opened, inline, closed = reader.parse(markdown.escaped(text))
    assert (opened.type, closed.type) == ("paragraph_open", "paragraph_close")
    assert {child.type for child in inline.children} <= {"text", "text_special"}
    assert shown("".join(child.content for child in inline.children)) == shown(text)


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_keeps_a_cell_in_its_cell(text):
    cell = markdown.escaped(text)
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(
        f"| a | b |\n| --- | --- |\n| {cell} | end |\n"
    )
    cells = [each for each in tokens if each.type == "inline"]
    assert len(cells) == 4
    assert shown("".join(c.content for c in cells[2].children)) == shown(text)


def test_markdown_names_stay_readable():
    text = "feed_forward: all @ layers(50%..), +0.12 to +0.3 (p = 0.01)"
    assert markdown.escaped(text) == text


def test_a_block_of_code_cannot_be_left(tmp_path):
    fenced = markdown._fenced("a: |\n  ```\n  # out?\n  ````", "yaml")
    [block] = MarkdownIt().parse(fenced)
    assert block.content == "a: |\n  ```\n  # out?\n  ````\n"


@pytest.mark.parametrize(
    "text",
    ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1", "\uff201"],
)
def test_no_cell_of_the_csv_is_a_formula(tmp_path, text):
    write_csv([{"name": text, "loss": -0.5}], tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        [row] = csv.DictReader(file)
    assert row == {"name": f"'{text}", "loss": "-0.5"}
