"""What a table is whose columns say what they are: plain data, for JSON and for drawing."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column.

    Attributes:
        name: what it is called, in words.
        unit: of its values: ``text``, ``count``, ``nats``, ``percent``, ``ratio``, ``factor``,
            ``number``, ``seconds``, ``bytes``, ``flops``.
        meaning: how its values follow, and when they are not known.
        of: its value for one row; None where it is not known.
    """

    name: str
    unit: str
    meaning: str
    of: Callable[[Row], Any]


def table(title: str, columns: Sequence[Column], rows: Iterable[Row]) -> dict[str, Any]:
    """Return a table as ``{"title", "columns": [{"name", "unit", "meaning"}], "rows"}``."""
    return {
        "title": title,
        "columns": [
            {"name": column.name, "unit": column.unit, "meaning": column.meaning}
            for column in columns
        ],
        "rows": [{column.name: column.of(row) for column in columns} for row in rows],
    }


def known(columns: Iterable[Column], rows: Sequence[Row]) -> list[Column]:
    """Return the columns of which at least one row has a value."""
    return [column for column in columns if any(column.of(row) is not None for row in rows)]


def divided(value: float | None, by: float | None) -> float | None:
    """Return a quotient, None where either is not known or the divisor is zero."""
    return None if value is None or by is None or by == 0 else value / by


def times(value: float | None, factor: float) -> float | None:
    """Return a product, None where the value is not known."""
    return None if value is None else value * factor
