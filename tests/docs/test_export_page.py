"""Does docs/export.md say what the code takes?"""

import re

import typer.main

from loratlas.cli.main import app
from loratlas.export.targets import TARGETS, VLLM_RANKS
from loratlas.imports.csv_table import NEEDED, OPTIONAL, PER_EXAMPLE, PER_TRIAL

from .conftest import REPOSITORY, commands

PAGE = REPOSITORY / "docs" / "export.md"


def test_every_command_is_one_that_the_command_line_takes():
    group = typer.main.get_command(app)
    found = commands(PAGE)
    assert {command.arguments[0] for command in found} == {"export", "import"}
    for command in found:
        verb, *rest = command.arguments
        group.commands[verb].make_context(verb, list(rest))


def test_the_tables_name_every_target_and_every_column():
    text = PAGE.read_text()
    first = re.findall(r"^\| ((?:`[\w-]+`(?:, )?)+) \|", text, re.MULTILINE)
    named = {name for cell in first for name in re.findall(r"`([\w-]+)`", cell)}
    assert named - {"--to"} == {*TARGETS, *NEEDED, *PER_TRIAL, *PER_EXAMPLE, *OPTIONAL}
    assert f"rank above {VLLM_RANKS[-1]}" in text
