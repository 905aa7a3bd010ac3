"""``loratlas results``: the table of a run."""

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
    from loratlas.report.tables import cost_table, notes, results_table
    from loratlas.study.folder import open_run

    found = results(open_run(run))
    if json:
        print_json(found)
    else:
        print_rich(results_table(found), cost_table(found), *notes(found))
