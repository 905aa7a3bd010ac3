"""What a person may write for a size, a count, a time, a limit on the loss, a budget or ranks."""

import math
import re
from decimal import Decimal

from loratlas.allocate.budget import Budget, Unit
from loratlas.analysis.budget import LossLimit
from loratlas.errors import RequestError, did_you_mean

_NUMBER = re.compile(r"(?P<number>[0-9][0-9_,]*(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?) ?(?P<unit>.*)")
_SIZES = {"": 1, "B": 1} | {
    f"{prefix}{end}": int(base**power)
    for power, prefix in enumerate("kMGT", start=1)
    for end, base in (("B", 1000), ("iB", 1024))
}
_COUNTS = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9}
_TIMES = {"": 1, "s": 1, "min": 60, "h": 3600}
_LOSSES = {"": 1, "%": 1}
# A B alone is a billion parameters, as beside k and M; bytes are written out or have a prefix.
_BUDGETS: dict[Unit, dict[str, int]] = {
    "parameters": {**_COUNTS, "parameters": 1},
    "ranks": {"rank": 1, "ranks": 1},
    "bytes": {unit: size for unit, size in _SIZES.items() if len(unit) > 1} | {"bytes": 1},
}
_RANK = re.compile(r"(?P<first>[0-9]{1,6})(?:\.\.(?P<last>[0-9]{1,6}))?")


def parse_size(text: str, option: str, *, zero: bool = False) -> int:
    """Return bytes of a text such as ``2GiB``, ``500 MB`` or ``1048576``.

    Raises:
        RequestError: it is no size, or 0 where that is none; names the option.
    """
    what = "a size such as 2GiB, 500MB or 1048576"
    number, unit = _read(text, option, _SIZES, what, zero=zero)
    return math.floor(number * _SIZES[unit])


def parse_count(text: str, option: str) -> int:
    """Return a count of a text such as ``250000``, ``250k`` or ``1.5M``.

    Raises:
        RequestError: it is no count; names the option.
    """
    number, unit = _read(text, option, _COUNTS, "a count such as 250000, 250k or 1.5M")
    return math.floor(number * _COUNTS[unit])


def parse_seconds(text: str, option: str) -> float:
    """Return seconds of a text such as ``90``, ``90s``, ``1.5min`` or ``2h``.

    Raises:
        RequestError: it is no time; names the option.
    """
    number, unit = _read(text, option, _TIMES, "a time such as 90, 1.5min or 2h")
    return float(number * _TIMES[unit])


def parse_loss(text: str, option: str) -> LossLimit:
    """Return the limit of a text such as ``0.02`` (nats per token) or ``5%`` (of the gain).

    Raises:
        RequestError: it is none, or a share of 100% or more; names the option.
    """
    what = "0.02 (nats per token) or 5% (of the baseline's gain)"
    number, unit = _read(text, option, _LOSSES, what, zero=True)
    if unit == "%" and number >= 100:
        raise RequestError(f"{option} {text}: a share of the baseline's gain is below 100%")
    return LossLimit(amount=float(number / 100 if unit else number), is_share=bool(unit))


def parse_budget(text: str, option: str) -> Budget:
    """Return the budget of a text such as ``2M`` (parameters), ``64 ranks`` or ``10MiB``.

    Raises:
        RequestError: it is none; names the option.
    """
    what = "2M or 1500000 for parameters, 64 ranks, or 10MiB"
    units = {unit: factor for factors in _BUDGETS.values() for unit, factor in factors.items()}
    number, unit = _read(text, option, units, what)
    amount = math.floor(number * units[unit])
    if amount == 0:
        raise RequestError(f"{option} {text}: less than 1 of its unit; write {what}")
    return Budget(amount=amount, unit=next(kind for kind in _BUDGETS if unit in _BUDGETS[kind]))


def parse_ranks(text: str, option: str) -> tuple[int, ...]:
    """Return the ranks of a text such as ``0, 4, 8`` or ``0, 4..16``; both ends are included.

    Raises:
        RequestError: it is no list of ranks; names the option.
    """
    ranks: list[int] = []
    for entry in map(str.strip, text.split(",")):
        found = _RANK.fullmatch(entry)
        first, last = (
            (int(found["first"]), int(found["last"] or found["first"])) if found else (1, 0)
        )
        if last < first:
            raise RequestError(
                f"{option} {text}: {entry!r} is no rank and no range of ranks; write a list such "
                "as 0,4,8,16 or 0,4..16"
            )
        ranks += range(first, last + 1)
    return tuple(ranks)


def _read(
    text: str, option: str, units: dict[str, int], what: str, *, zero: bool = False
) -> tuple[Decimal, str]:
    """Return a number, exact as it is written, and its unit."""
    found = _NUMBER.fullmatch(text.strip())
    if found is None:
        raise RequestError(f"{option} {text}: write {what}")
    by_lower = {unit.lower(): unit for unit in units}
    unit = by_lower.get(found["unit"].lower())
    if unit is None:
        near = did_you_mean(found["unit"], units)
        raise RequestError(f"{option} {text}: {found['unit']!r} is no unit{near}; write {what}")
    written = re.sub("[_,]", "", found["number"])
    number = float(written)
    if not math.isfinite(number * units[unit]) or (number == 0 and not zero):
        least = "from 0 up" if zero else "above 0"
        raise RequestError(f"{option} {text}: write a number {least}, {what}")
    # What a float takes for 0 may have an exponent that is too small for either.
    return Decimal(written) if number else Decimal(0), unit
