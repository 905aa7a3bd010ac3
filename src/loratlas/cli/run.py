"""``loratlas run``: carry out what is missing of a study."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loratlas.cli.output import JsonOption, complain, print_json, print_rich
from loratlas.numerics import fix_order_of_sums

if TYPE_CHECKING:
    from loratlas.cli.progress import TerminalListener
    from loratlas.study.options import RunOptions
    from loratlas.study.spec import StudySpec


def command(
    study: Annotated[Path, typer.Argument(help="The study file.", metavar="STUDY")],
    out: Annotated[
        Path | None, typer.Option(help="The run folder; runs/NAME when not given.", metavar="DIR")
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe/--no-probe", help="Measure each placement alone first.")
    ] = True,
    pack: Annotated[
        int | None,
        typer.Option(min=1, help="Most trials that train together.", metavar="N"),
    ] = None,
    prefix_memory: Annotated[
        str | None,
        typer.Option(
            help="Memory for hidden states below the lowest adapters; a share of what is free "
            "when not given.",
            metavar="SIZE",
        ),
    ] = None,
    prefix_file: Annotated[
        str,
        typer.Option(
            help="Size of a file in the run folder for what that memory does not hold.",
            metavar="SIZE",
        ),
    ] = "0",
    checkpoint: Annotated[
        float,
        typer.Option(
            min=0, help="Seconds between two checkpoints of what is under way.", metavar="SECONDS"
        ),
    ] = 60,
    new_version: Annotated[
        bool,
        typer.Option(
            "--new-version",
            help="Where the run folder holds another study, or this one as it was before a "
            "change: leave it as it is, and begin beside it.",
        ),
    ] = False,
    workers: Annotated[
        int,
        typer.Option(
            min=0,
            max=1,
            envvar="LORATLAS_WORKERS",
            help="Processes that work; with 0 the command works itself, for debugging.",
            metavar="N",
        ),
    ] = 1,
    json: JsonOption = False,
) -> None:
    """Run what is missing of a study; safe to repeat.

    Ends with the table of results and the path of the run folder. Exits 1 when a trial
    failed; the others are kept, and repeating the command tries it again. Ctrl-C once finishes
    the step and keeps what is under way; twice stops at once.
    """
    fix_order_of_sums()
    from loratlas.cli.progress import TerminalListener
    from loratlas.study.folder import default_folder
    from loratlas.study.options import RunOptions
    from loratlas.study.spec import load_study
    from loratlas.study.workers.supervisor import supervise

    options = RunOptions(
        probe=probe,
        trials_per_pack=pack,
        prefix_memory=_size(prefix_memory, "--prefix-memory"),
        prefix_file=_size(prefix_file, "--prefix-file") or 0,
        checkpoint_seconds=checkpoint,
        new_version=new_version,
    )
    spec = load_study(study)
    folder = out if out is not None else default_folder(spec)
    with TerminalListener() as listener:
        folder = (supervise if workers else _work_here)(spec, folder, listener, options)
    _show(folder, json)


def _size(given: str | None, option: str) -> int | None:
    from loratlas.cli.quantities import parse_size

    return None if given is None else parse_size(given, option, zero=True)


def _work_here(
    spec: "StudySpec", folder: Path, listener: "TerminalListener", options: "RunOptions"
) -> Path:
    from loratlas.study.run import run_study

    try:
        return run_study(spec, folder, listener, options)
    except KeyboardInterrupt:
        complain(f"stopped; finished trials are kept in {folder}, the same command goes on")
        raise typer.Exit(1) from None


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
