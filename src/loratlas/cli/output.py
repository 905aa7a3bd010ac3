"""How the command line speaks: results on stdout, everything else on stderr."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from loratlas.errors import RequestError
from loratlas.printable import printable
from loratlas.redaction import redacted

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")
]

# Wide enough for the tables where nobody looks at a screen.
_WIDTH_WITHOUT_TERMINAL = 150


def print_json(data: Any) -> None:
    """Print plain data as JSON; a NaN in it is a fault of ours and raises ValueError.

    ASCII alone: any stdout can take it, and a path need not be UTF-8.
    """
    print(json.dumps(data, indent=2, allow_nan=False))


def write_json(data: Any, out: Path) -> None:
    """Write plain data as JSON to the file of ``--out``.

    Raises:
        RequestError: it cannot be written.
    """
    text = json.dumps(data, indent=2, allow_nan=False) + "\n"
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RequestError(f"--out {out}: cannot be written: {error.strerror}") from error


def print_rich(*renderables: Any) -> None:
    """Print tables and text for a person; text stands as it is, whatever brackets it holds."""
    from loratlas.cli.console import SafeConsole

    width = None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL
    console = SafeConsole(width=width, highlight=False, emoji=False)
    for renderable in renderables:
        if isinstance(renderable, str):
            console.print(printable(renderable, keep="\n"), markup=False, soft_wrap=True)
        else:
            console.print(renderable)


def complain(message: str) -> None:
    """Print one error on stderr."""
    said = printable(redacted(message), keep="\n")
    print(f"loratlas: {said}", file=sys.stderr)
