"""A terminal shows what comes from elsewhere, and obeys none of it."""

import io

import pytest
from rich.markup import escape
from rich.table import Table

from loratlas.cli.console import SafeConsole
from loratlas.cli.main import main
from loratlas.cli.output import complain, print_rich
from loratlas.cli.progress import TerminalListener

HOSTILE = [
    "\x1b[2Jcleared",
    "\x1b]0;renamed\x07",
    "\x1b]8;;http://example.org\x1b\\link\x1b]8;;\x1b\\",
    "\x9b31mred",
    "over\rwritten\b\b",
    "a\u202egpj.exe",
    "isolated\u2066\u2069",
    "none\u200b\u2060wide",
    "[red]markup[/red]",
]


def obeyed(text: str) -> set[str]:
    return {letter for letter in text if not letter.isprintable() and letter != "\n"}


@pytest.mark.parametrize("text", HOSTILE)
def test_a_cell_of_a_table_is_shown(text):
    file = io.StringIO()
    table = Table(escape(text), title=escape(text))
    table.add_row(escape(text))
    # A terminal, so that nothing is left out for the want of one; without colours of Rich's own.
    console = SafeConsole(file=file, force_terminal=True, color_system=None, width=90)
    console.print(table)
    assert obeyed(file.getvalue()) == set()
    assert len({len(line) for line in file.getvalue().splitlines()[1:]}) == 1


@pytest.mark.parametrize("text", HOSTILE)
def test_a_sentence_and_an_error_are_shown(text, capsys):
    print_rich(text)
    complain(text)
    with TerminalListener() as listener:
        listener.say(text)
    said = capsys.readouterr()
    assert obeyed(said.out + said.err) == set()
    if "[red]" in text:
        assert said.out == f"{text}\n"
        assert said.err == f"loratlas: {text}\n{text}\n"


def test_the_error_of_a_trial_is_shown(make, capsys):
    run = make(status="failed", error="".join(HOSTILE), adapter=None)
    with pytest.raises(SystemExit):
        main(["status", str(run)])
    said = capsys.readouterr()
    assert r"\x1b[2Jcleared" in said.out
    assert "[red]markup[/red]" in said.out
    assert obeyed(said.out + said.err) == set()
