"""What does a lower loss cost: in parameters, memory, time, bytes and operations?"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loratlas.analysis.pareto import Point
from loratlas.report.document.charts import (
    between,
    by_placement,
    chart,
    mark,
    quantity,
    scale_of,
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
    text,
)
from loratlas.report.document.sections.answer import covered
from loratlas.report.plans import duration, operations, size

_MIB = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Something that a placement takes.

    Attributes:
        key: short, for file names.
        label: what a reader chooses.
        title: of its axis, with the unit.
        of: its value for a placement of the results, None where not known.
        factor: of the value on the axis.
        shown: how it is written.
        objective: its name in `loratlas.analysis.pareto`, None where that has none.
    """

    key: str
    label: str
    title: str
    of: Callable[[Plain], float | None]
    shown: Callable[[Any], str]
    factor: float = 1
    objective: str | None = None


COSTS = (
    Cost(
        key="parameters",
        objective="parameters",
        label="trainable parameters",
        title="trainable parameters",
        of=lambda found: found["trainable_parameters"],
        shown="{:,}".format,
    ),
    Cost(
        key="memory",
        objective="memory",
        label="peak memory",
        title="peak memory of a training step above the model, MiB",
        of=lambda found: found["peak_memory_bytes"],
        shown=size,
        factor=1 / _MIB,
    ),
    Cost(
        key="time",
        objective="time",
        label="training time",
        title="training time of one trial alone, seconds",
        of=lambda found: found["seconds"],
        shown=duration,
    ),
    Cost(
        key="adapter",
        objective="adapter_bytes",
        label="adapter on disk",
        title="saved adapter, MiB",
        of=lambda found: found["resources"]["adapter_bytes"]["on_disk"],
        shown=size,
        factor=1 / _MIB,
    ),
    Cost(
        key="flops",
        label="operations",
        title="operations of one row, forward and back, GFLOPs",
        of=lambda found: found["resources"]["flops"]["planned"],
        shown=operations,
        factor=1e-9,
    ),
)


def tradeoffs(facts: Facts) -> Section:
    """Return loss against each cost that is known of at least one placement."""
    charts = [each for cost in COSTS if (each := _chart(facts, cost)) is not None]
    found = facts.results["placements"].values()
    figure = Figure(
        name="pareto",
        title="Loss against cost",
        caption="Lower and further left is better. A vertical line is the 95% interval of the mean "
        f"loss, for {covered(each.get('loss_interval_over') for each in found)}; the broken line "
        "joins the placements that no other beats in both. Memory and time are measured by a probe "
        "that trains the placement alone.",
        choice="against",
        charts=charts,
    )
    return Section(
        name="tradeoffs",
        title="What a lower loss costs",
        figures=(figure,) if charts else (),
        tables=_tables(facts),
    )


def _chart(facts: Facts, cost: Cost) -> Chart | None:
    points = _points(facts, cost)
    rows = [
        _row(name, found, cost, value, points.get(name))
        for name, found in facts.results["placements"].items()
        if found["loss"] is not None and (value := cost.of(found)) is not None
    ]
    if not rows:
        return None
    told = tooltip(placement="placement", loss_text="loss", range="95%", cost_text=cost.label,
                   chance="on the frontier")  # fmt: skip
    seen = by_placement([row["placement"] for row in rows])
    joined = {"y": quantity("loss"), "order": {"field": "cost", "type": "quantitative"}}
    line = mark("line", joined, style="frontier", interpolate="step-after")
    best = line | {"transform": [{"filter": "datum.best"}]}
    spec = chart(
        rows,
        *([best] if any(row["best"] for row in rows) else []),
        *between(rows, "rule", "y", "low", "high", {"color": seen["color"]}, strokeWidth=1.5),
        mark("point", {"y": quantity("loss"), **seen, **told}, filled=True, size=130, opacity=1),
        height=340,
        x=quantity("cost", cost.title, scale=scale_of([row["cost"] for row in rows])),
        y={
            "title": f"{facts.results['split']} loss, nats per prediction",
            "scale": {"zero": False, "nice": True},
        },
    )
    return Chart(stem=f"pareto-{cost.key}", label=cost.label, spec=spec)


def _points(facts: Facts, cost: Cost) -> dict[str, Point]:
    found = facts.frontiers.get(cost.objective or "")
    return {} if found is None else {point.placement: point for point in found.points}


def _row(
    name: str, found: Plain, cost: Cost, value: float, point: Point | None
) -> Mapping[str, Any]:
    ends = found["loss_interval"]
    return {
        "placement": name,
        "loss": found["loss"],
        "low": None if ends is None else ends[0],
        "high": None if ends is None else ends[1],
        "cost": value * cost.factor,
        "best": point is not None and point.on_frontier,
        "chance": _chance(point),
        "loss_text": f"{found['loss']:.4f}",
        "range": interval(ends).text,
        "cost_text": cost.shown(value),
    }


def _chance(point: Point | None) -> str:
    if point is None or point.probability is None:
        return UNKNOWN
    return f"{point.probability * 100:.0f}% of draws"


def _tables(facts: Facts) -> tuple[Table, ...]:
    """Return how sure it is of each placement that no other beats it in loss and a cost."""
    asked = [cost for cost in COSTS if cost.objective and _points(facts, cost)]
    if not asked:
        return ()
    points = {cost.key: _points(facts, cost) for cost in asked}
    table = Table(
        name="frontier",
        title="Probability of being on the frontier of loss and a cost",
        columns=columns("placement", *(cost.label for cost in asked)),
        rows=[
            [text(name), *(_probability(points[cost.key].get(name)) for cost in asked)]
            for name in facts.names
        ],
        notes=tuple(_notes(facts, asked)),
        for_paper=True,
    )
    return (table,)


def _probability(point: Point | None) -> Cell:
    return number(None if point is None else point.probability, ".2f")


def _notes(facts: Facts, asked: Sequence[Cost]) -> Iterator[str]:
    yield (
        "On the frontier: no other placement is at least as good in both and better in one. The "
        "share of draws from the joint distribution of the losses, for new seeds and new examples; "
        "parameters, memory and bytes are taken as they are."
    )
    found = [facts.frontiers[cost.objective or ""] for cost in asked]
    yield from dict.fromkeys(said for each in found for said in each.says)
    left_out = {name: why for each in found for name, why in each.left_out.items()}
    for name, why in left_out.items():
        yield f"{name} is left out: {why}"
