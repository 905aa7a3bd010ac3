"""Nothing that is printed is obeyed, and all of it can be read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loratlas.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("attention: all @ layers(50%..) ± 0.1, τ-b", "attention: all @ layers(50%..) ± 0.1, τ-b"),
        ("\x1b[31mred\x1b]0;title\x07", r"\x1b[31mred\x1b]0;title\x07"),
        ("a\u202egpj.exe\u2066b\u200b", r"a\u202egpj.exe\u2066b\u200b"),
        ("\x9b2J\r\b\x00", r"\x9b2J\r\x08\x00"),
        ("half \ud800 of one", r"half \ud800 of one"),
        ("two\nlines\tand a tab", r"two\nlines\tand a tab"),
    ],
)
def test_what_cannot_be_printed_is_written_out(text, shown):
    assert printable(text) == shown


def test_letters_can_be_kept():
    assert printable("two\nlines\x1b", keep="\n") == "two\nlines\\x1b"


@given(st.text())
def test_what_comes_out_is_printable_and_stays(text):
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown
