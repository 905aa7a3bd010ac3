"""The report in Markdown, for a repository, an issue or a notebook.

Every letter that Markdown would obey is escaped: a name is shown and never a link, a formula,
a tag or a cell of its own.
"""

import re
from collections.abc import Iterator, Sequence

from loratlas.printable import printable
from loratlas.report.document.pieces import Figure, Section, Table

# What opens a construct in CommonMark, GitHub's dialect or its mathematics, inside a line...
_INSIDE = re.compile(r"[\\`*\[\]~$|]|(?<![^\W_])_|_(?![^\W_])|:(?=\S)")
# ... and where a line begins.
_AT_START = re.compile(r"^(?:[-+](?=[-+\s]|$)|[>#=]|\d+(?=[.)](?:\s|$)))")
_TAG = re.compile(r"<(?=[a-zA-Z/!?])")
_LINE_BREAKS = re.compile(r"\s*[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+\s*")


def escaped(text: str) -> str:
    """Return text that Markdown shows as it stands, on one line."""
    line = printable(_LINE_BREAKS.sub(" ", text).strip(), keep="\t").replace("&", "&amp;")
    line = _TAG.sub("&lt;", line)
    return _AT_START.sub(_kept_apart, _INSIDE.sub(r"\\\g<0>", line))


def _kept_apart(start: re.Match[str]) -> str:
    """Escape what would begin a list, a heading, a quotation or a rule."""
    return f"{start[0]}\\" if start[0].isdigit() else f"\\{start[0]}"


def markdown(title: str, headline: str, sections: Sequence[Section]) -> str:
    """Return the whole report.

    Args:
        title: name of the study.
        headline: the answer, in a sentence or two.
        sections: what stands in it.
    """
    parts = [f"# {escaped(title)}", f"**{escaped(headline)}**"]
    for section in sections:
        parts += _section(section)
    return "\n\n".join(parts) + "\n"


def _section(section: Section) -> Iterator[str]:
    yield f"## {escaped(section.title)}"
    for paragraph in section.words:
        yield escaped(paragraph)
    for figure in section.figures:
        yield from _figure(figure)
    for table in section.tables:
        yield from _table(table)
    if section.source is not None:
        yield from ("### The study file", _fenced(section.source, "yaml"))


def _figure(figure: Figure) -> Iterator[str]:
    yield f"### {escaped(figure.title)}"
    for chart in figure.charts:
        label = f"{figure.title}: {chart.label}" if figure.choice else figure.title
        yield f"![{escaped(label)}](figures/{chart.stem}.svg)"
    yield escaped(figure.caption)


def _table(table: Table) -> Iterator[str]:
    yield f"### {escaped(table.title)}"
    if table.long:
        yield f"{len(table.rows):,} lines, in [trials.csv](trials.csv)."
        return
    lines = [
        [escaped(column.name) for column in table.columns],
        ["---:" if column.numeric else "---" for column in table.columns],
        *([escaped(cell.text) for cell in row] for row in table.rows),
    ]
    yield "\n".join(f"| {' | '.join(line)} |" for line in lines)
    for note in table.notes:
        yield escaped(note)


def _fenced(source: str, language: str) -> str:
    """Return a block of code whose fence is longer than any in it."""
    longest = max((len(run) for run in re.findall(r"`+", source)), default=0)
    fence = "`" * max(3, longest + 1)
    shown = printable(source.rstrip(), keep="\n\t")
    return f"{fence}{language}\n{shown}\n{fence}"
