"""Tables for a paper, in LaTeX with booktabs."""

import re
from collections.abc import Iterable, Iterator, Sequence

from loratlas.printable import printable
from loratlas.report.document.pieces import Cell, Column, Section, Table

_HEAD = """\
% Tables of a loratlas report. In the preamble: \\usepackage{booktabs,graphicx}
% Names may hold any letter: compile with LuaLaTeX or XeLaTeX where they are not Latin.
"""
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}",
    "–": "--",  # noqa: RUF001
    "Σ": r"$\Sigma$",
    "≥": r"$\geq$",
}
_LETTERS = re.compile("|".join(map(re.escape, _SPECIAL)))
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_MINUS = re.compile(r"(?<![\w.])-(?=\d)")


def escaped(text: str) -> str:
    """Return text that LaTeX sets as it stands."""
    line = printable(_CONTROL.sub(" ", text))
    # Two hyphens are a dash to LaTeX; a hyphen and a brace are not.
    line = _LETTERS.sub(lambda found: _SPECIAL[found[0]], line.replace("--", "-\0-"))
    return line.replace("\0", "{}")


def latex(sections: Sequence[Section]) -> str:
    """Return every table that is for a paper, one after another."""
    tables = [table for section in sections for table in section.tables if table.for_paper]
    return _HEAD + "".join(f"\n{_table(table)}\n" for table in tables)


def _table(table: Table) -> str:
    return "\n".join(_lines(table))


def _lines(table: Table) -> Iterator[str]:
    kinds = "".join("r" if column.numeric else "l" for column in table.columns)
    yield r"\begin{table}"
    yield r"\centering"
    yield rf"\caption{{{escaped(table.title)}}}"
    yield rf"\label{{tab:{table.name}}}"
    # A table wider than the line is set smaller, never over the margin.
    yield r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
    yield rf"\begin{{tabular}}{{{kinds}}}"
    yield r"\toprule"
    yield _row([escaped(column.name) for column in table.columns])
    yield r"\midrule"
    for row in table.rows:
        yield _row(_cell(*pair) for pair in zip(row, table.columns, strict=True))
    yield r"\bottomrule"
    yield r"\end{tabular}}"
    if table.notes:
        yield rf"\par\smallskip\footnotesize {' '.join(map(escaped, table.notes))}"
    yield r"\end{table}"


def _cell(cell: Cell, column: Column) -> str:
    line = escaped(cell.text)
    return _MINUS.sub("$-$", line) if column.numeric else line


def _row(cells: Iterable[str]) -> str:
    return rf"{' & '.join(cells)} \\"
