"""What does docs/reference/commands.md say? Every verb and its options, for `make_reference`."""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from typer.models import ArgumentInfo, OptionInfo

from loratlas.cli.main import app
from reference_text import first_line, marked, table


def commands_page() -> Iterator[str]:
    """Yield every verb with its arguments and options."""
    yield "# Commands"
    yield (
        "Results are printed on stdout, everything else on stderr. The exit codes are in "
        "[errors.md](errors.md), the keys of `--json` in [json.md](json.md)."
    )
    verbs = [(str(command.name), command.callback) for command in app.registered_commands]
    yield "\n".join(f"- [`{name}`](#loratlas-{name}): {first_line(verb)}" for name, verb in verbs)
    for name, verb in verbs:
        assert verb is not None
        yield from _command(name, verb)


def _command(name: str, verb: Callable[..., Any]) -> Iterator[str]:
    hints = get_type_hints(verb, include_extras=True)
    arguments, options = [], []
    for parameter in inspect.signature(verb).parameters.values():
        kind, info = get_args(hints[parameter.name])[:2]
        if isinstance(info, ArgumentInfo):
            arguments.append((f"`{info.metavar or parameter.name.upper()}`", marked(info.help)))
        elif isinstance(info, OptionInfo):
            options.append(
                (
                    _option(parameter.name, kind, info),
                    _default(parameter.default),
                    _values(kind),
                    marked(info.help),
                )
            )
    usage = " ".join(["loratlas", name, *(cell.strip("`") for cell, _ in arguments), "[OPTIONS]"])
    yield f"## loratlas {name}"
    yield f"```text\n{usage}\n```"
    yield marked(inspect.getdoc(verb))
    if arguments:
        yield table(("argument", "what it is"), arguments)
    yield table(("option", "default", "allowed", "what it does"), options)


def _default(value: Any) -> str:
    if value is inspect.Parameter.empty:
        return "needed"
    return "" if value in (None, False) else f"`{value}`"


def _option(name: str, kind: Any, info: OptionInfo) -> str:
    flags = ", ".join(info.param_decls or [f"--{name.replace('_', '-')}"])
    return f"`{flags}`" if kind is bool else f"`{flags} {info.metavar or name.upper()}`"


def _values(kind: Any) -> str:
    """Return which values an option takes, in words."""
    kinds = [item for item in _members(kind) if item is not NoneType]
    if kinds == [bool]:
        return "a flag"
    if get_origin(kinds[0]) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kinds[0]))
    words = {int: "an integer", float: "a number", str: "text", Path: "a path"}
    words |= {list[str]: "text, as often as wanted"}
    return words[kinds[0]]


def _members(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
