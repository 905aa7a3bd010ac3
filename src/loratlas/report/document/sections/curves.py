"""How did training go: the loss of each step, with the spread over seeds?"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loratlas.analysis.quality import finite
from loratlas.report.document.charts import ON_SCREEN, by_placement, chart, mark, quantity, tooltip
from loratlas.report.document.facts import Facts
from loratlas.report.document.pieces import Chart, Figure, Section

MOST_POINTS = 80
_FAINT = 0.08


def curves(facts: Facts) -> Section:
    """Return the training loss of every placement at its chosen rate."""
    steps = _window(facts)
    rows = [row for name in facts.names for row in _curve(name, _losses(facts, name), steps)]
    figures = (_figure(rows, steps),) if rows else ()
    return Section(name="curves", title="How training went", figures=figures)


def _losses(facts: Facts, name: str) -> list[Sequence[float]]:
    digest = {each.name: each.digest for each in facts.placements}[name]
    rate = facts.results["placements"][name]["learning_rate"]
    return [
        trial.record.losses
        for trial in facts.trials
        if trial.record.placement_digest == digest
        and trial.record.learning_rate == rate
        and trial.record.status == "done"
        and trial.record.losses
    ]


def _window(facts: Facts) -> int:
    """Return how many steps one drawn point is the mean of."""
    longest = max((len(trial.record.losses) for trial in facts.trials), default=0)
    return max(1, -(-longest // MOST_POINTS))


def _curve(name: str, losses: Sequence[Sequence[float]], window: int) -> Iterator[dict[str, Any]]:
    """Yield a row a window: the mean over seeds, the lowest and the highest seed."""
    if not losses:
        return
    shortest = min(map(len, losses))
    seeds: NDArray[np.float64] = np.array([each[:shortest] for each in losses], dtype=np.float64)
    for start in range(0, shortest, window):
        means = seeds[:, start : start + window].mean(axis=1)
        middle = finite(float(means.mean()))
        if middle is not None:
            yield {
                "placement": name,
                "step": min(start + window, shortest),
                "loss": round(middle, 5),
                "low": round(float(means.min()), 5),
                "high": round(float(means.max()), 5),
            }


def _figure(rows: Sequence[Mapping[str, Any]], window: int) -> Figure:
    names = list(dict.fromkeys(row["placement"] for row in rows))
    seen = by_placement(names, dashes=True)
    picked = {"name": "picked", "bind": "legend", "select": {"type": "point",
              "fields": ["placement"]}}  # fmt: skip
    told = tooltip(placement="placement", step="step", loss="loss", low="lowest seed",
                   high="highest seed")  # fmt: skip
    band = {"y": quantity("low"), "y2": {"field": "high"}, "color": seen["color"],
            "opacity": _when_picked(0.16, 0.02)}  # fmt: skip
    line = {"y": quantity("loss"), **seen, "opacity": _when_picked(1, _FAINT)}
    dots = {
        "y": quantity("loss"),
        "color": seen["color"],
        **told,
        "opacity": {"condition": {"param": "near", "empty": False, "value": 1}, "value": 0},
    }
    near = {"name": "near", "select": {"type": "point", "on": "pointerover",
            "clear": "pointerout"}}  # fmt: skip
    spec = chart(
        rows,
        mark("area", band) | {"params": [picked]},
        mark("line", line, strokeWidth=2),
        mark("point", dots, filled=True, size=150) | {"params": [near], "name": ON_SCREEN},
        x=quantity("step", "optimiser step"),
        y={"title": "training loss, nats", "scale": {"zero": False}},
    )
    averaged = "" if window == 1 else f" Each point is the mean of {window} steps."
    return Figure(
        name="curves",
        title="Training loss at the chosen learning rate",
        caption="A line is the mean over seeds, its band reaches from the lowest seed to the "
        f"highest.{averaged} Choose a name in the legend to bring its line forward.",
        charts=(Chart(stem="curves", label="training loss", spec=spec),),
    )


def _when_picked(shown: float, otherwise: float) -> dict[str, Any]:
    return {"condition": {"param": "picked", "value": shown}, "value": otherwise}
