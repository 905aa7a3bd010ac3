"""How a table of placements is drawn so that it fits a terminal of 80 columns."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

UNKNOWN = "-"

Column = tuple[str, Callable[[Mapping[str, Any]], str]]
"""A header, and what it shows of a placement."""


def by_placement(
    title: str,
    columns: Sequence[Column],
    found: Mapping[str, Any],
    *,
    folded: Collection[str] = (),
) -> Table:
    """Return a table with a line a placement.

    Args:
        title: what stands above it, plain text.
        columns: what stands in it, from left to right.
        found: results or a plan, with its placements by name.
        folded: headers of columns of text, which stand to the left and may be folded.
    """
    rows = [
        (name, [show(placement) for _, show in columns])
        for name, placement in found["placements"].items()
    ]
    return narrow_table(title, [header for header, _ in columns], rows, folded=folded)


def narrow_table(
    title: str,
    headers: Sequence[str],
    rows: Sequence[tuple[str, Sequence[str]]],
    *,
    folded: Collection[str] = (),
) -> Table:
    """Return a table of rows (name, cells); figures stand to the right and are never cut."""
    table = Table(
        title=escape(title),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("placement", overflow="fold", min_width=12)
    for header in headers:
        if header in folded:
            table.add_column(header, overflow="fold", min_width=12)
        else:
            table.add_column(header, justify="right", no_wrap=True)
    for name, cells in rows:
        table.add_row(escape(name), *map(escape, cells))
    return table


def percent(found: Mapping[str, Any], key: str) -> str:
    """Return a percentage with two decimals, a dash where it is unknown."""
    return UNKNOWN if found[key] is None else f"{found[key]:.2f}%"


def figure(value: float | None, digits: int = 4) -> str:
    """Return a number with so many decimals, a dash where it is unknown."""
    return UNKNOWN if value is None else f"{value:,.{digits}f}"


def with_interval(value: float | None, interval: Sequence[float] | None, sign: str = "") -> str:
    """Return a mean with half the width of its interval, a dash where it is unknown."""
    if value is None:
        return UNKNOWN
    text = f"{value:{sign},.4f}"
    return text if interval is None else f"{text} ± {(interval[1] - interval[0]) / 2:.4f}"
