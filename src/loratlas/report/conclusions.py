"""How contrasts, claims and sweeps look as a table and as sentences in a terminal."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from loratlas.analysis.p_values import p_text
from loratlas.report.narrow import UNKNOWN, figure, narrow_table


def verdict_tables(results: Mapping[str, Any]) -> list[Table]:
    """Return each placement against the baseline, nothing where there is none to compare."""
    contrasts = results["contrasts"]
    if not contrasts:
        return []
    rows = [
        (
            each["placement"],
            [
                UNKNOWN if each["difference"] is None else f"{each['difference']:+.4f}",
                _interval(each["interval"]),
                p_value(each["p_adjusted"]),
                each["verdict"],
            ],
        )
        for each in contrasts
    ]
    title = f"against {contrasts[0]['baseline'] or 'a baseline that is missing'}"
    return [narrow_table(title, ("difference", "95% interval", "p (Holm)", "verdict"), rows)]


def conclusions(results: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the contrasts, claims and sweeps say, a sentence or two each."""
    for contrast in results["contrasts"]:
        yield contrast["says"]
    for claim in results["claims"]:
        yield f"Claim: {claim['says']}"
    for sweep in results["sweeps"].values():
        yield from sweep["says"]


def p_value(p: float | None) -> str:
    """Return a p value with two digits, a dash where there is none."""
    return UNKNOWN if p is None else p_text(p)


def _interval(interval: list[float] | None) -> str:
    if interval is None:
        return UNKNOWN
    return f"{figure(interval[0])} to {figure(interval[1])}"
