"""Where did each placement put its adapters: layer by role?"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from loratlas.anatomy.sites import Anatomy, Site
from loratlas.placement.placement_lints import layer_ranges
from loratlas.report.document.charts import chart, mark, quantity, tooltip
from loratlas.report.document.facts import Facts
from loratlas.report.document.grid import Grid, grid_of
from loratlas.report.document.pieces import (
    Chart,
    Figure,
    Section,
    Table,
    columns,
    number,
    text,
)
from loratlas.study.records import PlacementRecord

_ROW_HEIGHT = 26
_MOST_LABELLED = 26


def adapted(facts: Facts) -> Section:
    """Return what was adapted as a heatmap a placement, and as a table.

    A run that did not keep its model's sites has the table alone.
    """
    figures = () if facts.anatomy is None else (_figure(facts, facts.anatomy),)
    return Section(
        name="adapted",
        title="What was adapted",
        figures=figures,
        tables=(_table(facts),),
    )


def _figure(facts: Facts, anatomy: Anatomy) -> Figure:
    paths = {a["path"] for record in facts.placements for a in record.adapters}
    grid = grid_of(anatomy, paths)
    highest = max((a["rank"] for record in facts.placements for a in record.adapters), default=1)
    return Figure(
        name="adapted",
        title="Adapters by layer and role",
        caption="A filled cell holds adapters; its colour and number are their rank, the highest "
        "where they differ. An empty cell is a site of the model without one. A placement that "
        "moves is shown where it begins.",
        choice="placement",
        charts=[_chart(at, record, grid, highest) for at, record in enumerate(facts.placements, 1)],
    )


def _chart(at: int, record: PlacementRecord, grid: Grid, highest: int) -> Chart:
    adapters = {adapter["path"]: adapter for adapter in record.adapters}
    rows = [_row(layer, role, sites, adapters) for (layer, role), sites in grid.cells.items()]
    told = tooltip(role="role", layer="layer", ranks="rank", sites="sites adapted")
    scale = {"scheme": "blues", "domain": [0, highest]}
    filled = [{"filter": "isValid(datum.rank)"}]
    legend = {"title": "rank", "tickMinStep": 1, "format": "d"}
    layers = [
        mark("rect", {"color": {"value": "transparent"}, **told}, style="site"),
        mark("rect", {"color": quantity("rank", "rank", scale=scale, legend=legend), **told})
        | {"transform": filled},
    ]
    if len(grid.layers) <= _MOST_LABELLED:
        dark = {"test": f"datum.rank > {highest / 2}", "value": "white"}
        layers.append(
            mark("text", {"text": quantity("rank"),
                          "color": {"condition": dark, "value": "#24292f"}}, fontSize=11)
            | {"transform": filled}
        )  # fmt: skip
    spec = chart(rows, *layers, height=_ROW_HEIGHT * len(grid.roles), **grid.axes)
    return Chart(stem=f"adapted-{at}", label=record.name, spec=spec)


def _row(
    layer: str, role: str, sites: Sequence[Site], adapters: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    there = [adapters[site.path]["rank"] for site in sites if site.path in adapters]
    return {
        "layer": layer,
        "role": role,
        "rank": max(there, default=None),
        "ranks": ", ".join(map(str, sorted(set(there)))) or "none",
        "sites": f"{len(there)} of {len(sites)}",
    }


def _table(facts: Facts) -> Table:
    found = facts.results["placements"]
    families = list(dict.fromkeys(f for each in found.values() for f in each["families"]))
    return Table(
        name="adapted",
        title="Adapters",
        columns=columns("placement", "rule", "sites", "rank", "layers", "parameters", *families,
                        "% of base and adapters", "% less than baseline",
                        words=("rule", "rank", "layers")),
        rows=[
            [
                text(record.name),
                text(record.rule),
                number(found[record.name]["num_sites"], ",d"),
                text(", ".join(map(str, found[record.name]["ranks"]))),
                text(_layers(record, facts.anatomy)),
                number(found[record.name]["trainable_parameters"], ",d"),
                *(number(found[record.name]["families"].get(f), ",d") for f in families),
                number(found[record.name]["percent_of_base_and_adapters"], ".2f"),
                number(found[record.name]["percent_saved_against_baseline"], ".2f"),
            ]
            for record in facts.placements
        ],
        notes=tuple(_notes(facts)),
        for_paper=True,
    )  # fmt: skip


def _notes(facts: Facts) -> Iterator[str]:
    yield "Under the name of a family: the parameters that its sites have."
    if facts.moved:
        yield (
            "Of a placement that moves: sites, ranks and parameters of the trials at the chosen "
            "rate when they had ended, parameters as the mean over seeds."
        )


def _layers(record: PlacementRecord, anatomy: Anatomy | None) -> str | None:
    if anatomy is None:
        return None
    sites = [anatomy.by_path.get(adapter["path"]) for adapter in record.adapters]
    return layer_ranges(site.layer for site in sites if site is not None)
