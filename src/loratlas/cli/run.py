"""``loratlas run``: carry out what is missing of a study."""

from pathlib import Path
from typing import Annotated

import typer

from loratlas.cli.output import JsonOption, complain, print_json, print_rich


def command(
    study: Annotated[Path, typer.Argument(help="The study file.", metavar="STUDY")],
    out: Annotated[
        Path | None, typer.Option(help="The run folder; runs/NAME when not given.", metavar="DIR")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Run what is missing of a study; safe to repeat.

    Ends with the table of results and the path of the run folder. Exits 1 when a trial
    failed; the others are kept, and repeating the command tries it again.
    """
    from loratlas.study.folder import default_folder
    from loratlas.study.spec import load_study

    spec = load_study(study)
    folder = out if out is not None else default_folder(spec)
    _carry_out(spec, folder)

    from loratlas.analysis.summary import results
    from loratlas.report.tables import cost_table, notes, results_table
    from loratlas.study.folder import open_run

    found = results(open_run(folder))
    if json:
        print_json({**found, "run": str(folder)})
    else:
        print_rich(results_table(found), cost_table(found), *notes(found), f"run folder: {folder}")
    if any(placement["num_failed"] for placement in found["placements"].values()):
        raise typer.Exit(1)


def _carry_out(spec: object, folder: Path) -> None:
    from loratlas.cli.progress import TerminalListener
    from loratlas.study.run import run_study
    from loratlas.study.spec import StudySpec

    assert isinstance(spec, StudySpec)
    try:
        with TerminalListener() as listener:
            run_study(spec, folder, listener)
    except KeyboardInterrupt:
        complain(f"stopped; finished trials are kept in {folder}, the same command goes on")
        raise typer.Exit(1) from None
