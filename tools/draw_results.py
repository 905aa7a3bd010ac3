"""Draw the results of a run as an SVG, as the terminal shows them: the README's picture.

python tools/draw_results.py runs/quickstart docs/images/quickstart.svg
"""

import argparse
import io
import re
from pathlib import Path

from rich.console import Console

from loratlas.analysis.summary import results
from loratlas.report.tables import notes, results_tables
from loratlas.study.folder import open_run

_WIDTH = 96
# Rich's own template fetches a font from the web; a picture should need no network.
_FONT = "font-family: Menlo, Consolas, 'DejaVu Sans Mono', monospace;"


def draw(run: Path, command: str) -> str:
    """Return the tables of a run as SVG text."""
    console = Console(record=True, width=_WIDTH, highlight=False, file=io.StringIO())
    found = results(open_run(run))
    console.print(f"$ {command}")
    for renderable in (*results_tables(found), *notes(found)):
        console.print(renderable)
    svg = console.export_svg(title="loratlas", font_aspect_ratio=0.602, unique_id="results")
    svg = re.sub(r"@font-face \{[^}]*\}", "", svg)
    svg = re.sub(r"font-family: Fira Code[^;]*;", _FONT, svg)
    return re.sub(r"[ \t]+$", "", svg, flags=re.MULTILINE) + "\n"


def main() -> None:
    """Read the arguments and write the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--command", default="make study")
    arguments = parser.parse_args()
    arguments.out.write_text(draw(arguments.run, arguments.command), encoding="utf-8")


if __name__ == "__main__":
    main()
