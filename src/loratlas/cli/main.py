"""The command ``loratlas``: one verb a file, each loaded when it is called."""

import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

import typer

from loratlas.cli import (
    allocate,
    anatomy,
    audit,
    diff,
    doctor,
    export,
    import_,
    place,
    plan,
    recommend,
    report,
    results,
    run,
    schema,
    score,
    status,
)
from loratlas.cli.output import complain
from loratlas.errors import LoratlasError
from loratlas.printable import printable
from loratlas.redaction import redacted

app = typer.Typer(
    name="loratlas",
    help="Find out where in a transformer LoRA adapters should go.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# How typer ends a command at Ctrl-C.
_INTERRUPTED = 130

for verb in (
    doctor,
    anatomy,
    place,
    diff,
    plan,
    run,
    status,
    results,
    score,
    allocate,
    recommend,
    report,
    audit,
    export,
    import_,
    schema,
):
    # The file of `import` cannot have its name, which is a word of Python.
    app.command(verb.__name__.rpartition(".")[2].rstrip("_"))(verb.command)


@app.callback(invoke_without_command=True)
def options(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)
    ] = False,
) -> None:
    """Find out where in a transformer LoRA adapters should go."""
    if show_version:
        print(version("loratlas"))
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exit 0, 1 (the work failed) or 2 (the request was wrong)."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name="loratlas")
    except SystemExit as end:
        if end.code == _INTERRUPTED:
            complain("stopped")
            sys.exit(1)
        raise
    except LoratlasError as error:
        complain(str(error))
        sys.exit(error.exit_code)
    except Exception:  # a fault of ours: told whole, but for what must not be told
        print(printable(redacted(traceback.format_exc()), keep="\n"), end="", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
