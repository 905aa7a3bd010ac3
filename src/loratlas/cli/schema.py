"""``loratlas schema``: the JSON Schema of study files, for editors."""

from pathlib import Path
from typing import Annotated

import typer

from loratlas.cli.output import JsonOption, print_json


def command(
    out: Annotated[
        Path | None, typer.Option(help="Write it to this file instead.", metavar="FILE")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Print the JSON Schema of study files; an editor completes and checks with it."""
    from json import dumps

    from loratlas.errors import RequestError
    from loratlas.study.fields import schema

    del json  # it is JSON either way
    if out is None:
        print_json(schema())
        return
    try:
        out.write_text(dumps(schema(), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise RequestError(f"{out}: cannot be written: {error.strerror}") from error
