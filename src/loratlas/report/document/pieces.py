"""What is a report made of? Sections with words, figures and tables, in no format yet.

The page, the Markdown, the LaTeX and the pictures are all drawn from these, so that no two of
them can say different things. Text is plain text; each format escapes it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

UNKNOWN = "–"  # noqa: RUF001 (a dash, as in a printed table)

Spec = Mapping[str, Any]
"""A chart in Vega-Lite, without colours of a theme and without a width."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """What stands in a table.

    Attributes:
        text: as it is read.
        value: number to sort by; None sorts by the text, unknown figures last.
        verdict: the verdict that the cell names, which a page may colour.
    """

    text: str
    value: float | None = None
    verdict: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A column: its header, and whether it holds figures, which stand to the right."""

    name: str
    numeric: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table.

    Attributes:
        name: short, for links and file names: letters and hyphens.
        title: one line.
        columns: at least one.
        rows: cells, as many a row as there are columns.
        notes: sentences it is to be read with.
        for_paper: whether it stands in ``tables.tex``.
        long: a line a trial or more: the page can filter it, Markdown names the CSV file instead.
    """

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()
    for_paper: bool = False
    long: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """One chart of a figure.

    Attributes:
        stem: name of its picture files, without ending.
        label: what tells it from the other charts of its figure.
        spec: the chart.
    """

    stem: str
    label: str
    spec: Spec


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A chart, or several of which a reader of the page chooses one.

    Attributes:
        name: short, for links.
        title: one line.
        caption: what is drawn and what its intervals cover, in sentences.
        choice: what is chosen between, such as ``against``; empty with one chart.
        charts: at least one; the first is shown first.
    """

    name: str
    title: str
    caption: str
    choice: str = ""
    charts: Sequence[Chart]


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A part of the report; one with nothing in it is left out.

    Attributes:
        name: short, for links.
        title: its heading.
        words: paragraphs.
        figures: in order.
        tables: below the figures.
        source: a file shown as it is, such as the study file.
    """

    name: str
    title: str
    words: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    source: str | None = None

    @property
    def has_content(self) -> bool:
        """Whether there is anything to show."""
        return bool(self.words or self.figures or self.tables or self.source)


def text(value: object) -> Cell:
    """Return a cell of words."""
    return Cell(text=UNKNOWN if value is None or value == "" else str(value))


def number(value: float | None, form: str = ".4f") -> Cell:
    """Return a cell with a figure in a format of Python's, a dash where it is unknown."""
    return Cell(text=UNKNOWN) if value is None else Cell(text=format(value, form), value=value)


def shown(value: float | None, as_text: str) -> Cell:
    """Return a cell with a figure that is written in its own way."""
    return Cell(text=UNKNOWN) if value is None else Cell(text=as_text, value=value)


def interval(ends: Sequence[float] | None, form: str = ".4f") -> Cell:
    """Return a cell ``low to high``, which sorts by its width."""
    if ends is None:
        return Cell(text=UNKNOWN)
    low, high = ends
    return Cell(text=f"{low:{form}} to {high:{form}}", value=high - low)


def columns(*names: str, words: Iterable[str] = ()) -> tuple[Column, ...]:
    """Return columns of figures, but for the first and those named as columns of words."""
    plain = {names[0], *words}
    return tuple(Column(name=name, numeric=name not in plain) for name in names)
