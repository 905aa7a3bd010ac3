"""How docstrings, classes and tables become Markdown, for `make_reference`."""

import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any


def function_text(name: str, function: Callable[..., Any]) -> Iterator[str]:
    """Yield a function's heading, signature and docstring."""
    yield f"## {name}"
    yield f"```python\n{name.rpartition('.')[2]}{_signature(function)}\n```"
    yield google(inspect.getdoc(function))


def class_text(kind: type) -> Iterator[str]:
    """Yield a class's heading and docstring, then a line for each property and method."""
    yield f"## {kind.__module__}.{kind.__name__}"
    yield google(inspect.getdoc(kind))
    members = [
        (name, member)
        for name, member in vars(kind).items()
        if name in ("__or__", "__and__", "__sub__") or not name.startswith("_")
    ]
    lines = [_member(name, member) for name, member in members if inspect.getdoc(member)]
    lines = [line for line in lines if line]
    if lines:
        yield "Properties and methods:"
        yield "\n".join(lines)


def _member(name: str, member: Any) -> str:
    """Return one line for a method or property, an empty one for anything else."""
    operators = {"__or__": "left | right", "__and__": "left & right", "__sub__": "left - right"}
    function = getattr(member, "__func__", member)
    if inspect.isfunction(function):
        call = operators.get(name) or f"{name}{_signature(function, without_self=True)}"
        return f"- `{call}`: {first_line(function)}"
    is_property = isinstance(member, property) or type(member).__name__ == "cached_property"
    return f"- `{name}`: {first_line(member)}" if is_property else ""


def _signature(function: Callable[..., Any], *, without_self: bool = False) -> str:
    signature = inspect.signature(function)
    if without_self:
        signature = signature.replace(parameters=list(signature.parameters.values())[1:])
    # Annotations that are written as text come with quotes, and types with their modules.
    text = re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Z])", "", str(signature))
    return re.sub(r"'([A-Z]\w*)'", r"\1", text).replace("'", '"')


def google(docstring: str | None) -> str:
    """Turn a Google-style docstring into Markdown: sections become lists."""
    lines = []
    for paragraph in inspect.cleandoc(docstring or "").split("\n\n"):
        head, _, body = paragraph.partition("\n")
        if head in ("Args:", "Attributes:", "Returns:", "Raises:"):
            items = re.split(r"\n(?=\S)", textwrap.dedent(body))
            listed = "\n".join(f"- {_item(' '.join(item.split()))}" for item in items)
            lines.append(f"{head}\n\n{listed}")
        else:
            lines.append(" ".join(paragraph.split()))
    return marked("\n\n".join(lines))


def _item(text: str) -> str:
    return re.sub(r"^(\w+): ", r"`\1`: ", text)


def rst(docstring: str | None, skip: int = 0) -> str:
    """Turn a module docstring into Markdown; `::` opens a block that is shown as it is."""
    paragraphs = inspect.cleandoc(docstring or "").split("\n\n")[skip:]
    shown, in_block = [], False
    for paragraph in paragraphs:
        if paragraph == "::":
            in_block = True
        elif in_block and paragraph.startswith(" "):
            shown.append(f"```text\n{inspect.cleandoc(paragraph)}\n```")
        else:
            in_block = False
            shown.append(marked(" ".join(paragraph.split())))
    return "\n\n".join(shown)


def first_line(item: Any) -> str:
    """Return the sentence that a docstring begins with."""
    return marked((inspect.getdoc(item) or "").partition("\n\n")[0])


def marked(text: str | None) -> str:
    """Return text with Markdown's single quotes for code, paragraphs on one line each."""
    return (text or "").strip().replace("``", "`")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; a bar inside a cell is escaped."""
    cells = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in row)} |" for row in cells)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", r"\|").split())
