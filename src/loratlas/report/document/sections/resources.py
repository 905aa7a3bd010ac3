"""What did each placement take: time, memory, bytes, operations?"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from loratlas.analysis.resources import resource_tables
from loratlas.report.described import shown
from loratlas.report.document.charts import chart, mark, names_of, quantity, tooltip
from loratlas.report.document.facts import Facts
from loratlas.report.document.pieces import Cell, Chart, Column, Figure, Section, Table, text
from loratlas.report.document.sections.tradeoffs import COSTS, Cost
from loratlas.report.document.words import sentence

_ROW_HEIGHT = 28
# Beyond the longest bar, so that its figure can stand beside it.
_ROOM = 1.15


def resources(facts: Facts) -> Section:
    """Return bars of what is known, and the tables that ``results --table resources`` prints."""
    charts = [each for cost in COSTS if (each := _bars(facts, cost)) is not None]
    figure = Figure(
        name="resources",
        title="Costs of each placement",
        caption="Memory and time are those of a probe that trains the placement alone; operations "
        "are those of the cost model.",
        choice="cost",
        charts=charts,
    )
    return Section(
        name="resources",
        title="Resources",
        figures=(figure,) if charts else (),
        tables=tuple(_tables(facts)),
    )


def _bars(facts: Facts, cost: Cost) -> Chart | None:
    rows = [
        {"placement": name, "cost": value * cost.factor, "cost_text": cost.shown(value)}
        for name, found in facts.results["placements"].items()
        if (value := cost.of(found)) is not None
    ]
    if not rows:
        return None
    told = tooltip(placement="placement", cost_text=cost.label)
    spec = chart(
        rows,
        mark("bar", told, height={"band": 0.6}, cornerRadiusEnd=2),
        mark("text", {"text": {"field": "cost_text", "type": "nominal"}}, align="left", dx=5),
        height=_ROW_HEIGHT * len({row["placement"] for row in rows}),
        y=names_of("placement", [row["placement"] for row in rows]),
        x=quantity("cost", cost.title, scale={"domain": [0, _ROOM * max(r["cost"] for r in rows)]}),
    )
    return Chart(stem=f"resources-{cost.key}", label=cost.label, spec=spec)


def _tables(facts: Facts) -> Iterator[Table]:
    for at, table in enumerate(resource_tables(facts.results)["tables"], 1):
        described = _with_values(table)
        if not described or not table["rows"]:
            continue
        first, *rest = described
        yield Table(
            name=f"resources-{at}",
            title=table["title"].capitalize(),
            columns=[Column(name=first["name"]),
                     *(Column(name=c["name"], numeric=c["unit"] != "text") for c in rest)],
            rows=[[_cell(row[c["name"]], c["unit"]) for c in described] for row in table["rows"]],
            notes=[sentence(f"{c['name']}: {c['meaning']}") for c in rest],
            for_paper=True,
        )  # fmt: skip


def _with_values(table: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the columns that have a value; none where only the first has."""
    first, *rest = table["columns"]
    kept = [c for c in rest if any(row[c["name"]] not in (None, 0) for row in table["rows"])]
    return [first, *kept] if kept else []


def _cell(value: Any, unit: str) -> Cell:
    if value is None:
        return text(None)
    return Cell(text=shown(value, unit), value=None if isinstance(value, str) else value)
