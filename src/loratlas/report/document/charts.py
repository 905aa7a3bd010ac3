"""What do the charts of a report share? Scales, tooltips and axes, as Vega-Lite has them.

Text of a person (names of placements) stands in data and domains alone, never in an expression
or a name of a field: a chart shows it and does not obey it. What it shows is `readable`.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from typing import Any

from loratlas.printable import printable
from loratlas.report.document.pieces import Spec
from loratlas.report.document.style import COLOURS, DASHES, SHAPES, VERDICTS

Row = Mapping[str, Any]
Layer = dict[str, Any]
Encoding = dict[str, Any]

ON_SCREEN = "on_screen"
"""Name of a layer that answers a pointer and shows nothing on paper."""

_SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
_MOST_SPREAD = 30
_MOST_IN_LEGEND = 40


def chart(rows: Sequence[Row], *layers: Spec, height: float = 300, **encoding: Any) -> Spec:
    """Return a chart of layers over the same rows, with what their encodings share."""
    return {
        "$schema": _SCHEMA,
        "data": {"values": list(rows)},
        "height": height,
        "encoding": encoding,
        "layer": list(layers),
    }


def mark(kind: str, /, encoding: Encoding | None = None, **properties: Any) -> Layer:
    """Return one layer."""
    return {"mark": {"type": kind, **properties}, "encoding": encoding or {}}


def between(
    rows: Sequence[Row],
    kind: str,
    axis: str,
    low: str,
    high: str,
    encoding: Encoding | None = None,
    **properties: Any,
) -> list[Layer]:
    """Return a layer from one end to the other of each row; none where no row has ends."""
    if all(row[low] is None for row in rows):
        return []
    ends = {axis: quantity(low), f"{axis}2": {"field": high}}
    return [mark(kind, {**ends, **(encoding or {})}, **properties)]


def line_at(x: float) -> Layer:
    """Return a line over the whole height, where nothing differs."""
    return mark("rule", {"x": {"datum": x, "type": "quantitative"}, "y": None}, style="zero")


def quantity(field: str, title: str | None = None, **more: Any) -> Encoding:
    """Return the encoding of a figure; without a title it has that of the chart's axis."""
    named = {} if title is None else {"title": title}
    return {"field": field, "type": "quantitative", **named, **more}


def names_of(field: str, names: Sequence[str], **more: Any) -> Encoding:
    """Return the encoding of names in an order of their own."""
    return {"field": field, "type": "nominal", "sort": list(names), "title": None, **more}


def tooltip(**titles: str) -> dict[str, Any]:
    """Return a tooltip: fields and what they are called; figures come as written in the rows."""
    return {"tooltip": [{"field": k, "type": "nominal", "title": v} for k, v in titles.items()]}


def by_placement(names: Sequence[str], *, dashes: bool = False) -> dict[str, Encoding]:
    """Return colour and shape (or dash) of each placement."""
    lines = {"symbolType": "stroke", "symbolStrokeWidth": 2.5} if dashes else {}
    legend = {"title": None, "symbolLimit": _MOST_IN_LEGEND, "symbolOpacity": 1, **lines}
    channel, values = ("strokeDash", DASHES) if dashes else ("shape", SHAPES)
    return {
        "color": names_of("placement", names, scale=_cycled(names, COLOURS), legend=legend),
        channel: names_of("placement", names, scale=_cycled(names, values), legend=legend),
    }


def by_verdict(rows: Sequence[Row]) -> dict[str, Encoding]:
    """Return colour and shape of the verdicts that occur."""
    seen = [verdict for verdict in VERDICTS if any(row["verdict"] == verdict for row in rows)]
    legend = {"title": None}
    colours = {"domain": seen, "range": [VERDICTS[each][0] for each in seen]}
    shapes = {"domain": seen, "range": [VERDICTS[each][1] for each in seen]}
    return {
        "color": names_of("verdict", seen, scale=colours, legend=legend),
        "shape": names_of("verdict", seen, scale=shapes, legend=legend),
    }


def readable(spec: Any) -> Any:
    """Return a chart, or a part of one, whose texts hold no letter that is obeyed or not seen."""
    match spec:
        case str():
            return printable(spec, keep="\n")
        case Mapping():
            return {key: readable(value) for key, value in spec.items()}
        case list() | tuple():
            return [readable(value) for value in spec]
    return spec


def scale_of(values: Sequence[float]) -> dict[str, Any]:
    """Return a scale that shows all of the values: of their logarithm where they lie far apart."""
    wide = min(values) > 0 and max(values) / min(values) > _MOST_SPREAD
    return {"type": "log"} if wide else {"zero": False, "nice": True, "padding": 24}


def _cycled(names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    kept = [list(each) if isinstance(each, tuple) else each for each in values]
    return {"domain": list(names), "range": list(islice(cycle(kept), len(names)))}
