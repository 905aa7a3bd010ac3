"""The charts as files for a paper: SVG, PDF and PNG, drawn without a browser."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import vl_convert

from loratlas.report.document.charts import ON_SCREEN, readable
from loratlas.report.document.pieces import Chart, Section, Spec
from loratlas.report.document.style import print_config

VEGA_LITE = "6.4"
WIDTH = 520
MOST_OF_A_FIGURE = 8
"""Of a figure with more charts than this, the page alone shows the others."""

_PIXELS_PER_INCH = 144


def drawn(sections: Sequence[Section]) -> Iterator[Chart]:
    """Yield the charts that are drawn as files."""
    for section in sections:
        for figure in section.figures:
            yield from figure.charts[:MOST_OF_A_FIGURE]


def write_pictures(sections: Sequence[Section], folder: Path) -> None:
    """Write every chart under its stem.

    Args:
        sections: whose charts are drawn.
        folder: which exists.
    """
    for chart in drawn(sections):
        spec, config = _on_paper(chart.spec), print_config()
        svg = vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE, config=config)
        (folder / f"{chart.stem}.svg").write_text(svg + "\n", encoding="utf-8")
        (folder / f"{chart.stem}.pdf").write_bytes(vl_convert.svg_to_pdf(svg))
        png = vl_convert.svg_to_png(svg, ppi=_PIXELS_PER_INCH)
        (folder / f"{chart.stem}.png").write_bytes(png)


def _on_paper(spec: Spec) -> dict[str, Any]:
    layers = [layer for layer in spec["layer"] if layer.get("name") != ON_SCREEN]
    shown: dict[str, Any] = readable({**spec, "layer": layers, "width": WIDTH})
    return shown
