"""``loratlas run``: carry out what is missing of a study."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loratlas.cli.output import JsonOption, complain, print_json, print_rich
from loratlas.numerics import fix_order_of_sums

if TYPE_CHECKING:
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
    json: JsonOption = False,
) -> None:
    """Run what is missing of a study; safe to repeat.

    Ends with the table of results and the path of the run folder. Exits 1 when a trial
    failed; the others are kept, and repeating the command tries it again.
    """
    fix_order_of_sums()
    from loratlas.study.folder import default_folder
    from loratlas.study.spec import load_study

    options = _options(probe, pack, prefix_memory, prefix_file)
    spec = load_study(study)
    folder = out if out is not None else default_folder(spec)
    try:
        _carry_out(spec, folder, options)
    except KeyboardInterrupt:
        complain(f"stopped; finished trials are kept in {folder}, the same command goes on")
        raise typer.Exit(1) from None
    _show(folder, json)


def _options(
    probe: bool, pack: int | None, prefix_memory: str | None, prefix_file: str
) -> "RunOptions":
    from loratlas.cli.quantities import parse_size
    from loratlas.study.options import RunOptions

    return RunOptions(
        probe=probe,
        trials_per_pack=pack,
        prefix_memory=(
            None
            if prefix_memory is None
            else parse_size(prefix_memory, "--prefix-memory", zero=True)
        ),
        prefix_file=parse_size(prefix_file, "--prefix-file", zero=True),
    )


def _carry_out(spec: "StudySpec", folder: Path, options: "RunOptions") -> None:
    from loratlas.cli.progress import TerminalListener
    from loratlas.study.run import run_study

    with TerminalListener() as listener:
        run_study(spec, folder, listener, options)


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
