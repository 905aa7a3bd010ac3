"""How docstrings and tables become Markdown, for `make_reference`."""

import inspect
import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any


def google(docstring: str | None) -> str:
    """Turn a Google-style docstring into Markdown: sections become lists."""
    lines = []
    for paragraph in inspect.cleandoc(docstring or "").split("\n\n"):
        head, _, body = paragraph.partition("\n")
        if head in ("Args:", "Attributes:", "Returns:", "Raises:"):
            items = re.split(r"\n(?=\S)", inspect.cleandoc(body))
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
    return marked((inspect.getdoc(item) or "").partition("\n\n")[0])


def marked(text: str | None) -> str:
    """Return text with Markdown's single quotes for code, paragraphs on one line each."""
    return (text or "").strip().replace("``", "`")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in row)} |" for row in cells)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", r"\|").split())


