"""Where were the parameters of placements that move, while they were trained?"""

from collections.abc import Iterator
from typing import Any

from loratlas.analysis.moved import Moved
from loratlas.report.document.charts import chart, mark, names_of, quantity, tooltip
from loratlas.report.document.facts import Facts
from loratlas.report.document.pieces import Chart, Figure, Section, Table, columns, number, text

_MOST_POINTS = 40
_TALLEST = 900
_ROW_HEIGHT = 16


def moved(facts: Facts) -> Section:
    """Return the trajectory of every placement that moved: a picture each, and a table."""
    found = facts.moved
    return Section(
        name="moved",
        title="How placements moved",
        words=tuple(_words(found)),
        figures=(_figure(facts, found),) if found else (),
        tables=(_table(found),) if found else (),
    )


def _words(found: list[Moved]) -> Iterator[str]:
    for each in found:
        learned = each.record.learned or {}
        yield f"{each.record.name}: {learned['policy']} {learned['title']}."
        yield from learned["notes"]
        if each.agreement is not None:
            yield (
                f"The final ranks of its {len(each.seeds)} seeds agree with Kendall's τ "
                f"{each.agreement:.2f} (1: the same order of sites; 0: no more than by chance)."
            )


def _figure(facts: Facts, found: list[Moved]) -> Figure:
    steps = facts.setting["steps_per_trial"] or max(each.steps[-1] for each in found)
    return Figure(
        name="moved",
        title="Rank of each site over the optimiser steps",
        caption="A row is a site, in the order of the model; its colour is its rank, the mean over "
        "the seeds at the chosen rate. Where a site has no column, nothing is drawn.",
        choice="placement",
        charts=[_chart(at, each, steps) for at, each in enumerate(found, 1)],
    )


def _chart(at: int, found: Moved, steps: int) -> Chart:
    rows = list(_rows(found, steps))
    over = {"domain": [0, steps], "nice": False}
    sites = list(found.paths)
    told = tooltip(site="site", step="from step", until="to step", rank="mean rank")
    spec = chart(
        rows,
        mark(
            "rect",
            {
                "x": quantity("step", "optimiser step", scale=over),
                "x2": {"field": "until"},
                "color": quantity("rank", "rank", scale={"scheme": "blues", "domainMin": 0}),
                **told,
            },
        ),
        height=min(_TALLEST, _ROW_HEIGHT * len(sites)),
        y=names_of(
            "site",
            sites,
            scale={"domain": sites},
            axis={"labelLimit": 260, "labelOverlap": True},
        ),
    )
    return Chart(stem=f"moved-{at}", label=found.record.name, spec=spec)


def _rows(found: Moved, steps: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each site and each stretch of steps between changes."""
    stride = max(1, -(-len(found.steps) // _MOST_POINTS))
    places = [*range(0, len(found.steps), stride)]
    # The last state is where a trial ended: it is always shown.
    places = sorted({*places, len(found.steps) - 1})
    ends = [*(found.steps[place] for place in places[1:]), steps]
    means = found.mean_ranks
    for number_of_site, path in enumerate(found.paths):
        for place, end in zip(places, ends, strict=True):
            if not means[number_of_site, place]:
                continue
            yield {
                "site": path,
                "step": found.steps[place],
                "until": max(end, found.steps[place]),
                "rank": round(float(means[number_of_site, place]), 2),
            }


def _table(found: list[Moved]) -> Table:
    return Table(
        name="moved",
        title="Placements that moved, seed by seed",
        columns=columns(
            "placement", "seed", "parameters at first", "most", "in the end", "sites left",
            "highest rank", "decisions",
        ),
        rows=[
            [
                text(each.record.name),
                number(seed, "d"),
                number(int(each.parameters[row, 0]), ",d"),
                number(int(each.parameters[row].max()), ",d"),
                number(int(each.parameters[row, -1]), ",d"),
                number(int((each.ranks[row, :, -1] > 0).sum()), "d"),
                number(int(each.ranks[row, :, -1].max()), "d"),
                number(each.num_decisions[row], ",d"),
            ]
            for each in found
            for row, seed in enumerate(each.seeds)
        ],
        notes=("Every decision is kept in the run folder, with its step, site and columns.",),
    )  # fmt: skip
