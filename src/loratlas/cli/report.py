"""``loratlas report``: a run as a page, words, tables and pictures."""

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from loratlas.cli.output import JsonOption, print_json, print_rich


def command(
    run: Annotated[Path, typer.Argument(help="The run folder.", metavar="RUN")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the report; report in the run folder.",
            metavar="DIR",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write what a run says as a web page, Markdown, LaTeX tables, pictures and data.

    Everything lies in one folder and needs no network: index.html stands alone, report.md has the
    words, tables.tex the tables, figures/ the pictures, results and trials the data as CSV and
    Parquet. An earlier report in its place is replaced. Needs the extra `report`.
    """
    from loratlas.report.document.write import write_report
    from loratlas.study.folder import open_run

    with closing(open_run(run)) as store:
        found = write_report(run, store, out)
    if json:
        print_json(found)
    else:
        print_rich(found["headline"], f"{Path(found['folder']) / 'index.html'}")
