"""``loratlas results``: the table of a run."""

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from loratlas.cli.output import JsonOption, print_json, print_rich


def command(
    run: Annotated[Path, typer.Argument(help="The run folder.", metavar="RUN")],
    json: JsonOption = False,
) -> None:
    """Show what came out of a run: losses with intervals, differences, costs."""
    from loratlas.analysis.summary import results
    from loratlas.report.tables import notes, results_tables
    from loratlas.study.folder import open_run

    with closing(open_run(run)) as store:
        found = results(store)
    if json:
        print_json(found)
    else:
        print_rich(*results_tables(found), *notes(found))
