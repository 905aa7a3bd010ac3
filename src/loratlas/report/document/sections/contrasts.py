"""How far is each placement from the baseline, and how sure is that?"""

from collections.abc import Sequence
from typing import Any

from loratlas.analysis.p_values import p_text
from loratlas.report.document.charts import (
    between,
    by_verdict,
    chart,
    line_at,
    mark,
    names_of,
    quantity,
    tooltip,
)
from loratlas.report.document.facts import Facts, Plain
from loratlas.report.document.pieces import (
    UNKNOWN,
    Cell,
    Chart,
    Figure,
    Section,
    Table,
    columns,
    interval,
    number,
    shown,
    text,
)
from loratlas.report.document.sections.answer import verdict_of

_ROW_HEIGHT = 34


def contrasts(facts: Facts) -> Section:
    """Return the differences from the baseline as a forest plot and a table."""
    found: Sequence[Plain] = facts.results["contrasts"]
    known = [each for each in found if each["difference"] is not None]
    return Section(
        name="contrasts",
        title="Differences from the baseline",
        figures=(_forest(known),) if known else (),
        tables=(_table(found),) if found else (),
    )


def _forest(found: Sequence[Plain]) -> Figure:
    baseline = found[0]["baseline"]
    rows = [_row(each) for each in sorted(found, key=lambda each: each["difference"])]
    names = [row["placement"] for row in rows]
    told = tooltip(placement="placement", verdict="verdict", shown="difference", range="95%",
                   p="p (Holm)", seeds="seeds")  # fmt: skip
    seen = by_verdict(rows)
    layers = [
        *between(rows, "bar", "x", "inside", "beyond", style="margin"),
        line_at(0),
        *between(rows, "rule", "x", "low", "high", {"color": seen["color"]}, strokeWidth=2.5),
        mark("point", {"x": quantity("value"), **seen, **told},
             filled=True, size=110, opacity=1),
    ]  # fmt: skip
    spec = chart(
        rows,
        *layers,
        height=_ROW_HEIGHT * len(names),
        y=names_of("placement", names, scale={"padding": 0}),
        x={
            "title": "difference, nats (left of 0: better)",
            "scale": {"zero": True, "nice": True},
        },
    )
    return Figure(
        name="forest",
        title=f"Difference of losses from {baseline}",
        caption=_caption(found),
        charts=(Chart(stem="forest", label="differences", spec=spec),),
    )


def _row(contrast: Plain) -> dict[str, Any]:
    value, ends, p = contrast["difference"], contrast["interval"], contrast["p_adjusted"]
    width = _width(contrast)
    return {
        "placement": contrast["placement"],
        "verdict": verdict_of(contrast),
        "value": value,
        "low": None if ends is None else ends[0],
        "high": None if ends is None else ends[1],
        "inside": None if width is None else -width,
        "beyond": width,
        "shown": f"{value:+.4f}",
        "range": interval(ends, "+.4f").text,
        "p": UNKNOWN if p is None else p_text(p),
        "seeds": contrast["num_seeds"],
    }


def _width(contrast: Plain) -> float | None:
    width: float | None = (contrast.get("margin") or {}).get("width")
    return width


def _caption(found: Sequence[Plain]) -> str:
    said = "A point is the mean difference, its line the 95% interval, not adjusted for how many "
    said += "placements are compared; verdicts are."
    shares = [each["margin"]["share"] for each in found if _width(each) is not None]
    if shares:
        share = max(shares) * 100
        said += f" The grey band is the margin: {share:.3g}% of the baseline's gain."
    return said


def _table(found: Sequence[Plain]) -> Table:
    names = ("difference", "95% interval", "p (Holm)", "p equivalent", "p not inferior",
             "sign-flip p", "margin", "seeds")  # fmt: skip
    return Table(
        name="contrasts",
        title=f"Against {found[0]['baseline'] or 'a baseline that is missing'}",
        columns=columns("placement", *names, "verdict", words=("verdict",)),
        rows=[_cells(each) for each in found],
        notes=(
            "p (Holm): of no difference, two-sided. p equivalent and p not inferior: of being "
            "beyond the margin, one-sided. All three are adjusted over the placements. Sign-flip "
            "p: exact, over seeds alone, as a check. Margin: in nats.",
        ),
        for_paper=True,
    )


def _cells(contrast: Plain) -> list[Cell]:
    width = _width(contrast)
    verdict = verdict_of(contrast)
    p_values = ("p_adjusted", "p_equivalent", "p_not_inferior", "sign_flip_p")
    return [
        text(contrast["placement"]),
        number(contrast["difference"], "+.4f"),
        interval(contrast["interval"], "+.4f"),
        *(_p(contrast.get(key)) for key in p_values),
        number(width),
        number(contrast["num_seeds"], "d"),
        Cell(text=verdict, verdict=verdict),
    ]


def _p(value: float | None) -> Cell:
    return shown(value, "" if value is None else p_text(value))
