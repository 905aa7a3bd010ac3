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
        tables=tuple(_tables(found)),
    )


def _tables(found: list[Moved]) -> Iterator[Table]:
    if found:
        yield _table(found)
    read = [each for each in found if (each.record.learned or {}).get("entropies")]
    if read:
        yield _entropies(read)


def _words(found: list[Moved]) -> Iterator[str]:
    for each in found:
        learned = each.record.learned or {}
        yield (
            f"{each.record.name}: {learned['policy']} {learned['title']}. What it costs alone is "
            "not known: a probe trains what stands still."
        )
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
        "the seeds at the chosen rate. Where a site has no column, nothing is drawn. What the last "
        "step left is drawn behind it.",
        choice="placement",
        charts=[_chart(at, each, steps) for at, each in enumerate(found, 1)],
    )


def _chart(at: int, found: Moved, steps: int) -> Chart:
    end = _end(found, steps)
    rows = list(_rows(found, end))
    over = {"domain": [0, end], "nice": False}
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


def _end(found: Moved, steps: int) -> int:
    """Return where a picture ends: behind the last step, where something changed after it."""
    return steps if found.steps[-1] < steps else steps + max(1, steps // _MOST_POINTS)


def _rows(found: Moved, end: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each site and each stretch of steps between changes."""
    stride = max(1, -(-len(found.steps) // _MOST_POINTS))
    places = [*range(0, len(found.steps), stride)]
    # The last state is where a trial ended: it is always shown.
    places = sorted({*places, len(found.steps) - 1})
    ends = [*(found.steps[place] for place in places[1:]), end]
    means = found.mean_ranks
    for number_of_site, path in enumerate(found.paths):
        for place, until in zip(places, ends, strict=True):
            if not means[number_of_site, place]:
                continue
            yield {
                "site": path,
                "step": found.steps[place],
                "until": until,
                "rank": round(float(means[number_of_site, place]), 2),
            }


def _table(found: list[Moved]) -> Table:
    return Table(
        name="moved",
        title="Placements that moved, seed by seed",
        columns=columns(
            "placement", "seed", "parameters at first", "most", "in the end", "budget",
            "sites left", "highest rank", "decisions",
        ),
        rows=[
            [
                text(each.record.name),
                number(seed, "d"),
                number(int(each.parameters[row, 0]), ",d"),
                number(int(each.parameters[row].max()), ",d"),
                number(int(each.parameters[row, -1]), ",d"),
                number(each.record.budget, ",d"),
                number(int((each.ranks[row, :, -1] > 0).sum()), "d"),
                number(int(each.ranks[row, :, -1].max()), "d"),
                number(each.num_decisions[row], ",d"),
            ]
            for each in found
            for row, seed in enumerate(each.seeds)
        ],
        notes=(
            "Budget: the most parameters in the end. Decisions: those that changed something. "
            "Every change is kept in the run folder, with its step, site and columns.",
        ),
    )  # fmt: skip


def _entropies(found: list[Moved]) -> Table:
    return Table(
        name="entropies",
        title="Entropy of the base's attention",
        columns=columns("placement", "layer", "entropy", words=("layer",)),
        rows=[
            [text(each.record.name), text(layer), number(entropy)]
            for each in found
            for layer, entropy in (each.record.learned or {})["entropies"].items()
        ],
        notes=(
            "Of each query over the keys that it sees, over the logarithm of their number: 0 where "
            "all weight lies on one of them, 1 where it is spread evenly; the mean over heads, "
            "queries and rows.",
        ),
    )
