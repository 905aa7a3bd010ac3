"""``loratlas run``: carry out what is missing of a study."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loratlas.cli.output import JsonOption, complain, print_json, print_rich

if TYPE_CHECKING:
    from loratlas.study.spec import StudySpec


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
    try:
        _carry_out(spec, folder)
    except KeyboardInterrupt:
        complain(f"stopped; finished trials are kept in {folder}, the same command goes on")
        raise typer.Exit(1) from None
    _show(folder, json)


def _carry_out(spec: "StudySpec", folder: Path) -> None:
    from loratlas.cli.progress import TerminalListener
    from loratlas.study.run import run_study

    with TerminalListener() as listener:
        run_study(spec, folder, listener)


def _show(folder: Path, json: bool) -> None:
    from loratlas.analysis.summary import results
    from loratlas.report.tables import notes, results_tables
    from loratlas.study.folder import open_run
    from loratlas.study.standing import standing

    with closing(open_run(folder)) as store:
        found, stands = results(store), standing(store)
    if json:
        print_json({**found, "run": str(folder)})
    else:
        print_rich(*results_tables(found), *notes(found), f"run folder: {folder}")
    arms = found["placements"].values()
    if stands["failed"] or any(placement["num_failed"] for placement in arms):
        raise typer.Exit(1)
