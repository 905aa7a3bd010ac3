"""What did the scores say that chose placements, and what did they cost?"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from loratlas.anatomy.sites import Anatomy
from loratlas.report.document.charts import chart, mark, quantity, tooltip
from loratlas.report.document.facts import Facts
from loratlas.report.document.grid import Grid, grid_of
from loratlas.report.document.pieces import Chart, Figure, Section, Table, columns, number, text
from loratlas.study.records import PlacementRecord

_ROW_HEIGHT = 26
_MIB = 2**20


def scored(facts: Facts) -> Section:
    """Return the scores behind every placement that they chose."""
    found = [record for record in facts.placements if _is_hybrid(record)]
    anatomy = facts.anatomy
    return Section(
        name="scored",
        title="What scores chose",
        words=tuple(_words(found)),
        figures=(_figure(found, anatomy),) if found and anatomy is not None else (),
        tables=(_table(found),) if found else (),
    )


def _is_hybrid(record: PlacementRecord) -> bool:
    return record.learned is not None and record.learned["kind"] == "hybrid"


def _of(record: PlacementRecord) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the scores and the allocation of a placement that scores chose."""
    assert record.learned is not None
    return record.learned["scores"], record.learned["allocation"]


def _words(found: Sequence[PlacementRecord]) -> Iterator[str]:
    for record in found:
        scores, allocation = _of(record)
        for note in (*scores["notes"], *allocation["notes"]):
            yield f"{record.name} ({scores['method']}): {note}"


def _figure(found: Sequence[PlacementRecord], anatomy: Anatomy) -> Figure:
    paths = {each["path"] for record in found for each in _of(record)[0]["scores"]}
    grid = grid_of(anatomy, paths)
    return Figure(
        name="scored",
        title="Scores by layer and role",
        caption="The share of the largest score; an outlined cell has no score of its own. Where "
        "lower is better, the darkest cells are those that should be adapted last.",
        choice="placement",
        charts=[_chart(at, record, grid) for at, record in enumerate(found, 1)],
    )


def _chart(at: int, record: PlacementRecord, grid: Grid) -> Chart:
    scores = {each["path"]: each["value"] for each in _of(record)[0]["scores"]}
    largest = max((abs(value) for value in scores.values()), default=0) or 1
    rows = []
    for (layer, role), sites in grid.cells.items():
        own = [scores[site.path] for site in sites if site.path in scores]
        mean = sum(own) / len(own) if own else None
        rows.append(
            {
                "layer": layer,
                "role": role,
                "share": None if mean is None else round(mean / largest, 4),
                "score": "none" if mean is None else f"{mean:.4g}",
            }
        )
    told = tooltip(role="role", layer="layer", score="score")
    spec = chart(
        rows,
        mark("rect", {"color": {"value": "transparent"}, **told}, style="site"),
        mark("rect", {"color": quantity("share", "score", scale={"scheme": "blues"}), **told})
        | {"transform": [{"filter": "isValid(datum.share)"}]},
        height=_ROW_HEIGHT * len(grid.roles),
        **grid.axes,
    )
    return Chart(stem=f"scored-{at}", label=record.name, spec=spec)


def _table(found: Sequence[PlacementRecord]) -> Table:
    return Table(
        name="scored",
        title="Scorers, and what they cost",
        columns=columns(
            "placement", "scorer", "unit", "rows forward", "rows backward", "seconds", "MiB",
            "split-half τ", "budget", "used", "gap, %", words=("scorer", "unit"),
        ),
        rows=[_cells(record) for record in found],
        notes=(
            "Seconds of scoring are charged to the placement: they stand in its cost beside those "
            "of its trials. Split-half τ: Kendall's τ-b of the scores from each half of the rows. "
            "Gap: to a bound on what the budget allows; of the proportional rule, on what a "
            "placement of its size can be worth.",
        ),
    )  # fmt: skip


def _cells(record: PlacementRecord) -> list[Any]:
    scores, allocation = _of(record)
    cost = scores["cost"]
    memory = cost["peak_memory_bytes"]
    return [
        text(record.name),
        text(scores["method"]),
        text(scores["unit"]),
        number(cost["num_forwards"], ",d"),
        number(cost["num_backwards"], ",d"),
        number(cost["seconds"], ".2f"),
        number(None if memory is None else memory / _MIB, ",.0f"),
        number(scores["agreement"], ".2f"),
        number(allocation["budget"]["amount"], ",d"),
        number(allocation["used"], ",d"),
        number(100 * allocation["gap"], ".3f"),
    ]
