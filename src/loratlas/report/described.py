"""How tables of described columns look in a terminal: values by their unit, meanings below."""

import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.table import Table

from loratlas.report.narrow import UNKNOWN, narrow_table
from loratlas.report.plans import operations

_HEADER_WIDTH = 8
_MOST_DIGITS = 10_000_000
_MIB, _GIB = 2**20, 2**30


def described_tables(found: Mapping[str, Any]) -> list[Table]:
    """Draw tables of `loratlas.analysis.columns`; the first column of each holds names."""
    return [_drawn(table) for table in found["tables"]]


def described_notes(found: Mapping[str, Any]) -> list[str]:
    """Return what each column means, each once, in the order of the tables."""
    return [f"{name}: {meaning}." for name, meaning in dict(_meanings(found)).items()]


def _meanings(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for table in found["tables"]:
        for column in table["columns"][1:]:
            yield column["name"], column["meaning"]


def _drawn(table: Mapping[str, Any]) -> Table:
    first, *columns = table["columns"]
    headers = {column["name"]: _wrapped(column["name"]) for column in columns}
    rows = [
        (row[first["name"]], [shown(row[column["name"]], column["unit"]) for column in columns])
        for row in table["rows"]
    ]
    folded = [headers[column["name"]] for column in columns if column["unit"] == "text"]
    return narrow_table(table["title"], list(headers.values()), rows, folded=folded)


def _wrapped(name: str) -> str:
    lines = textwrap.wrap(name, _HEADER_WIDTH, break_long_words=False)
    return "\n".join(lines)


def shown(value: Any, unit: str) -> str:
    """Return a value as its unit is written, a dash where it is unknown."""
    return UNKNOWN if value is None else _BY_UNIT[unit](value)


def _count(value: float) -> str:
    return f"{value:,.0f}" if value < _MOST_DIGITS else operations(value)


def _seconds(value: float) -> str:
    if abs(value) < 1:
        return f"{1000 * value:.1f} ms"
    return f"{value:.1f} s" if abs(value) < 1000 else f"{value:,.0f} s"


def _size(value: int) -> str:
    if value < 10 * _MIB:
        return f"{value / 2**10:,.1f} KiB"
    return f"{value / _MIB:.1f} MiB" if value < _GIB else f"{value / _GIB:.1f} GiB"


_BY_UNIT: Mapping[str, Callable[[Any], str]] = {
    "text": str,
    "nats": lambda value: f"{value:.4f}",
    "percent": lambda value: f"{value:.2f}%",
    "factor": lambda value: f"{value:.2f}x",
    "ratio": lambda value: f"{value:.3f}",
    "number": lambda value: f"{value:,.2f}",
    "count": _count,
    "count_rate": _count,
    "flops": operations,
    "seconds": _seconds,
    "bytes": _size,
}
