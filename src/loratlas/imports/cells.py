"""What stands in the cells of a line of a table? What is wrong is said with line and column."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from loratlas.errors import DataError
from loratlas.study.problems import visible

_Value = TypeVar("_Value")
# What a store keeps has 63 bits.
_MOST_DIGITS = 18


class Cells:
    """Reads the cells of one line; what is wrong is said with line and column."""

    def __init__(self, file: Path, number: int, row: Mapping[Any, Any]) -> None:
        self._where = f"{file}:{number}"
        self._row = row
        if None in row or None in row.values():
            raise DataError(f"{self._where}: has not as many cells as the first line")

    def text(self, key: str) -> str:
        """Return what stands in a cell that may not be empty."""
        value: str = self._row[key]
        if not value.strip():
            raise DataError(f"{self._where}: {key}: is empty")
        return value

    def one_of(self, key: str, allowed: Sequence[Any], otherwise: str) -> Any:
        """Return one of some words; an empty cell is the one that stands for it."""
        value = self._row.get(key) or otherwise
        if value not in allowed:
            raise DataError(
                f"{self._where}: {key}: {visible(value)} is none of {', '.join(allowed)}"
            )
        return value

    def number(
        self, key: str, read: Callable[[str], _Value], otherwise: _Value | None = None
    ) -> _Value:
        """Return a number; an empty cell, or a missing column, is the value that stands for it."""
        value = self._row.get(key) or ""
        if not value.strip() and otherwise is not None:
            return otherwise
        try:
            return read(value)
        except ValueError as error:
            raise DataError(
                f"{self._where}: {key}: {visible(value) or 'nothing'} is {error}"
            ) from None


def index(text: str) -> int:
    """Read a whole number from 0 on."""
    digits = text.strip()
    if not digits.isascii() or not digits.isdigit():
        raise ValueError("no whole number from 0 on")
    if len(digits) > _MOST_DIGITS:
        raise ValueError("too large")
    return int(digits)


def count(text: str) -> int:
    """Read a whole number from 1 on."""
    try:
        number = index(text)
    except ValueError as error:
        raise ValueError(str(error).replace("from 0", "from 1")) from None
    if not number:
        raise ValueError("no whole number from 1 on")
    return number


def finite(text: str) -> float:
    """Read a number."""
    try:
        value = float(text)
    except ValueError:
        raise ValueError("no number") from None
    if not math.isfinite(value):
        raise ValueError("no finite number; leave it empty, with the status diverged")
    return value


def positive(text: str) -> float:
    """Read a number above 0."""
    value = finite(text)
    if value <= 0:
        raise ValueError("not above 0")
    return value
