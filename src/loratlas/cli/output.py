"""How the command line speaks: results on stdout, everything else on stderr."""

import json
import sys
from typing import Annotated, Any

import typer

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


def print_rich(*renderables: Any) -> None:
    """Print tables and text for a person; text stands as it is, whatever brackets it holds."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL
    console = Console(width=width, highlight=False, emoji=False)
    for renderable in renderables:
        if isinstance(renderable, str):
            console.print(printable(renderable), markup=False, soft_wrap=True)
        else:
            console.print(renderable)


def complain(message: str) -> None:
    """Print one error on stderr."""
    print(f"loratlas: {printable(message)}", file=sys.stderr)


def printable(text: str) -> str:
    """Return text without control characters: names come from files, and a terminal obeys them."""
    return "".join(
        letter if letter.isprintable() or letter == "\n" else repr(letter)[1:-1] for letter in text
    )
