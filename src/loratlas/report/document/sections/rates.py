"""Which learning rates were tried, which was chosen, and does it lie at the edge?"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from loratlas.report.document.charts import by_placement, chart, mark, quantity, tooltip
from loratlas.report.document.facts import Facts
from loratlas.report.document.pieces import (
    Cell,
    Chart,
    Figure,
    Section,
    Table,
    columns,
    number,
    text,
)

Sweeps = Mapping[str, Mapping[str, Any]]


def rates(facts: Facts) -> Section:
    """Return the sweeps; nothing where each placement had one rate."""
    sweeps: Sweeps = facts.results.get("sweeps") or {}
    if not any(len(sweep["rates"]) > 1 for sweep in sweeps.values()):
        return Section(name="rates", title="Learning rates")
    rows = list(_rows(sweeps))
    return Section(
        name="rates",
        title="Learning rates",
        words=tuple(line for sweep in sweeps.values() for line in _said(sweep)),
        figures=(_figure(rows),) if rows else (),
        tables=(_table(sweeps),),
    )


def _said(sweep: Mapping[str, Any]) -> Sequence[str]:
    said = sweep.get("says") or []
    return [said] if isinstance(said, str) else said


def _rows(sweeps: Sweeps) -> Iterator[dict[str, Any]]:
    for name, sweep in sweeps.items():
        for each in sweep["rates"]:
            if each["loss"] is not None:
                yield {
                    "placement": name,
                    "rate": each["learning_rate"],
                    "loss": each["loss"],
                    "loss_text": f"{each['loss']:.4f}",
                    "seeds": each["num_seeds"],
                    "state": _state(sweep, each["learning_rate"]),
                }


def _state(sweep: Mapping[str, Any], rate: float) -> str:
    if rate != sweep["chosen"]:
        return "tried"
    return "chosen, at the edge" if sweep.get("at_edge") else "chosen"


def _figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    seen = by_placement(list(dict.fromkeys(row["placement"] for row in rows)))
    told = tooltip(placement="placement", rate="learning rate", loss_text="validation loss",
                   seeds="seeds", state="")  # fmt: skip
    chosen = {"test": "datum.state !== 'tried'"}
    size = {"condition": chosen | {"value": 220}, "value": 55}
    edge = [{"filter": "datum.state === 'chosen, at the edge'"}]
    spec = chart(
        rows,
        mark("line", {"color": seen["color"]}, strokeWidth=1.5, opacity=0.6),
        mark("point", {**seen, **told, "size": size}, filled=True, opacity=1),
        mark("text", {"text": {"value": "edge"}}, dy=-15, fontSize=11) | {"transform": edge},
        x=quantity("rate", "learning rate", scale={"type": "log", "padding": 24},
                   axis={"values": sorted({row["rate"] for row in rows}), "format": "~g"}),
        y=quantity("loss", "validation loss, nats", scale={"zero": False}),
    )  # fmt: skip
    return Figure(
        name="rates",
        title="Validation loss by learning rate",
        caption="Means over the seeds that ran at every rate. The large point is the rate that was "
        "chosen; “edge” stands where it is the lowest or the highest that was tried. A rate at "
        "which a seed diverged or failed has no point.",
        charts=(Chart(stem="rates", label="learning rates", spec=spec),),
    )


def _table(sweeps: Sweeps) -> Table:
    tried = sorted({each["learning_rate"] for s in sweeps.values() for each in s["rates"]})
    return Table(
        name="rates",
        title="Validation loss by learning rate",
        columns=columns("placement", *(f"{rate:g}" for rate in tried), "chosen", "at the edge",
                        words=("at the edge",)),
        rows=[[text(name), *_cells(sweep, tried)] for name, sweep in sweeps.items()],
        for_paper=True,
    )  # fmt: skip


def _cells(sweep: Mapping[str, Any], tried: Sequence[float]) -> list[Cell]:
    losses = {each["learning_rate"]: each["loss"] for each in sweep["rates"]}
    return [
        *(number(losses.get(rate)) for rate in tried),
        number(sweep["chosen"], "g"),
        text(sweep.get("at_edge") or "no"),
    ]
