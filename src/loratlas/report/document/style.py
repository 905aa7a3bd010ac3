"""Which colours and shapes stand for what, in light and in dark?

Colours are those of Okabe and Ito (Color Universal Design, 2008), which people who see few
colours can tell apart; every colour has a shape or a dash beside it as a second channel.
"""

from typing import Any, Literal

Theme = Literal["light", "dark"]

BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
PURPLE, ORANGE, SKY, GREY = "#CC79A7", "#E69F00", "#56B4E9", "#7A838C"

# Seven colours and eight shapes have no common factor: 56 placements look different.
COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, GREY)
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down",
          "triangle-right", "triangle-left")  # fmt: skip
DASHES = ((1, 0), (6, 3), (2, 2), (8, 3, 2, 3), (4, 2, 1, 2))

NO_VERDICT = "no verdict"
VERDICTS = {
    "better": (GREEN, "triangle-up", "▲"),
    "equivalent": (BLUE, "square", "■"),
    "not inferior": (SKY, "diamond", "◆"),
    "cannot tell": (GREY, "circle", "●"),
    "worse": (VERMILLION, "triangle-down", "▼"),
    NO_VERDICT: (GREY, "cross", "+"),
}
"""Colour, shape in a chart, and sign in text of each verdict."""

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', Arial, sans-serif"
_INK = {"light": ("#24292f", "#57606a", "#d8dee4"), "dark": ("#e6edf3", "#9da7b3", "#30363d")}


def config(theme: Theme) -> dict[str, Any]:
    """Return the Vega-Lite configuration of a theme; the ground is transparent."""
    ink, soft, faint = _INK[theme]
    axis = {"domainColor": soft, "tickColor": soft, "gridColor": faint, "gridOpacity": 0.6}
    words = {"labelColor": soft, "titleColor": ink, "labelFontSize": 12, "titleFontSize": 12}
    return {
        "background": None,
        "font": _FONT,
        "view": {"stroke": None},
        "axis": axis | words | {"titleFontWeight": "normal", "labelLimit": 220},
        "axisY": {"domain": False, "ticks": False},
        "legend": words | {"titleFontWeight": "normal", "labelLimit": 220, "symbolSize": 90},
        "text": {"color": ink},
        "axisX": {"tickCount": 6, "labelOverlap": True},
        "bar": {"color": BLUE},
        "style": {
            "zero": {"color": soft, "strokeDash": [3, 3]},
            "margin": {"color": soft, "fillOpacity": 0.14},
            "site": {"stroke": faint, "strokeWidth": 1},
            "frontier": {"color": soft, "strokeDash": [4, 3]},
        },
    }


def print_config() -> dict[str, Any]:
    """Return the configuration of pictures for a paper: the light one, on white."""
    return config("light") | {"background": "white", "font": "Arial, Helvetica, sans-serif"}
