"""Draw an audit as an SVG: the picture of docs/perplexity.md.

loratlas audit RUN --json > audit.json
python tools/draw_audit.py audit.json docs/images/perplexity.svg

On the left every definition: how far its perplexity is from exp of the corpus loss, and whether
it puts the placements in another order. On the right unshifted labels against the corpus loss,
above the founding study's published figures.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# As published: evaluation loss and perplexity of its three arms.
PUBLISHED = {
    "full": (3.089, 4283),
    "attention": (3.481, 2272),
    "feed-forward": (4.252, 3391),
}
INK, GREY, FAINT = "#24292f", "#6e7781", "#d8dee4"
SAME, OTHER = "#0969da", "#cf222e"
_STYLE = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "svg.fonttype": "none",  # text stays text, drawn in a font of the reader's
    "svg.hashsalt": "loratlas",  # equal input, equal file
}


def draw(audit: dict[str, Any], out: Path) -> None:
    """Write the picture of an audit; the ending of `out` says in which form."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9.6, 5.6), facecolor="white", layout="constrained")
        grid = figure.add_gridspec(2, 2, width_ratios=(1.15, 1))
        _draw_ratios(figure.add_subplot(grid[:, 0]), audit)
        _draw_run(figure.add_subplot(grid[0, 1]), audit)
        _draw_published(figure.add_subplot(grid[1, 1]))
        figure.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else None)
    if out.suffix == ".svg":
        lines = out.read_text(encoding="utf-8").splitlines()
        out.write_text("\n".join(line.rstrip() for line in lines) + "\n", encoding="utf-8")


def _draw_ratios(axes: Axes, audit: dict[str, Any]) -> None:
    """Draw one line a definition: from its smallest to its largest ratio to exp(loss)."""
    variants = [variant for variant in audit["variants"] if variant["applies"]]
    for at, variant in enumerate(reversed(variants)):
        ratios = [ratio for ratio in variant["ratio"].values() if ratio is not None]
        colour = OTHER if variant["contradicts"] else SAME if variant["agrees"] else GREY
        axes.plot([min(ratios), max(ratios)], [at, at], color=colour, linewidth=2, alpha=0.5)
        axes.plot(ratios, [at] * len(ratios), "o", color=colour, markersize=4)
    axes.axvline(1, color=FAINT, zorder=0)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.minorticks_off()
    axes.set_yticks(range(len(variants)), [v["name"] for v in reversed(variants)])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_xlabel("perplexity / exp(corpus loss), a dot a placement")
    axes.set_title("What each definition makes of one run")
    legend = ((SAME, "same order of placements"), (GREY, "other order, within noise"),
              (OTHER, "contradicts the loss"))  # fmt: skip
    for colour, label in legend:
        axes.plot([], [], "o-", color=colour, markersize=4, label=label)
    axes.legend(loc="center right", bbox_to_anchor=(1, 0.66), frameon=False, fontsize=8)


def _draw_run(axes: Axes, audit: dict[str, Any]) -> None:
    corpus, wrong = (_variant(audit, name)["per_seed"] for name in ("corpus", "labels_not_shifted"))
    for name, seeds in corpus.items():
        losses = [math.log(value) for value in seeds.values()]
        perplexities = [wrong[name][seed] for seed in seeds]
        colour = INK if name.startswith("published") or name == "full" else GREY
        axes.plot(losses, perplexities, "o", color=colour, markersize=4, alpha=0.7)
        centre = sum(losses) / len(losses)
        _name(axes, name.replace("_", " "), centre, max(perplexities), colour)
    _finish(axes, f"Labels not shifted: this run, {_num_seeds(audit)} seeds")


def _draw_published(axes: Axes) -> None:
    for name, (loss, perplexity) in PUBLISHED.items():
        axes.plot([loss], [perplexity], "o", color=INK, markersize=5)
        _name(axes, name, loss, perplexity, INK)
    _finish(axes, "The founding study, as published")


def _name(axes: Axes, name: str, x: float, y: float, colour: str) -> None:
    axes.annotate(
        name, (x, y), xytext=(0, 6), textcoords="offset points", ha="center", color=colour,
        fontsize=8,
    )  # fmt: skip


def _finish(axes: Axes, title: str) -> None:
    axes.margins(x=0.2)
    axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
    axes.set_title(title)
    axes.set_xlabel("corpus loss, nats per token" if "run" in title else "eval loss")
    axes.set_ylabel("perplexity")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def _variant(audit: dict[str, Any], name: str) -> dict[str, Any]:
    return next(variant for variant in audit["variants"] if variant["name"] == name)


def _num_seeds(audit: dict[str, Any]) -> int:
    return max(len(seeds) for seeds in audit["seeds"].values())


def main() -> None:
    """Read the arguments and write the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("audit", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    draw(json.loads(arguments.audit.read_text(encoding="utf-8")), arguments.out)


if __name__ == "__main__":
    main()
