"""The table of a notebook: a row a layer, a column a role, every text escaped."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import anatomies
from loratlas.placement.placement import place


class Cells(HTMLParser):
    """Collects the text of each cell by rows."""

    def __init__(self):
        super().__init__()
        self.rows, self.inside = [], False

    def handle_starttag(self, tag, attrs):  # noqa: ARG002
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = True

    def handle_endtag(self, tag):
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data):
        if self.inside:
            self.rows[-1][-1] += data


def cells(html):
    parser = Cells()
    parser.feed(html)
    return parser.rows


def test_an_anatomy_shows_shapes_by_layer_and_role():
    rows = cells(anatomies.gpt2(8, 2, vocabulary=64)._repr_html_())
    roles = ["embedding", "attention.qkv", "attention.o", "feed_forward.up", "feed_forward.down"]
    assert rows[0] == ["", *roles, "head"]
    assert rows[1] == ["decoder 0", "", "8 x 24", "8 x 8", "8 x 32", "32 x 8", ""]
    assert [row[0] for row in rows[1:]] == ["decoder 0", "decoder 1", "outside the blocks"]
    assert rows[3] == ["outside the blocks", "64 x 8", "", "", "", "", "8 x 64"]


def test_experts_of_one_layer_are_counted():
    html = anatomies.mixtral(layers=1)._repr_html_()
    assert "32 x 96 (4)" in html


def test_a_placement_shows_its_ranks_and_dots_where_none_is():
    anatomy = anatomies.gpt2(8, 2, vocabulary=64)
    html = place(anatomy, "attention @ last(1):3")._repr_html_()
    rows = cells(html)
    assert rows[1] == ["decoder 0", "", "·", "·", "·", "·", ""]
    assert rows[2] == ["decoder 1", "", "3", "3", "·", "·", ""]
    assert "2 of 10 sites, 144 trainable parameters" in html


def test_every_text_of_a_model_is_escaped():
    evil = "<script>alert('x')</script>"
    anatomy = replace(anatomies.gpt2(8, 1, vocabulary=64), model=evil, architecture=evil)
    for html in (anatomy._repr_html_(), place(anatomy, "all")._repr_html_()):
        assert "<script" not in html
        assert set(re.findall(r"<(\w+)", html)) <= {
            "div",
            "table",
            "thead",
            "tbody",
            "tr",
            "th",
            "td",
        }
