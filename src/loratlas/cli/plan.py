"""``loratlas plan``: what a study asks for and costs, before anything is spent."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loratlas.cli.output import JsonOption, print_json, print_rich

if TYPE_CHECKING:
    from loratlas.analysis.power import Pilot


def command(
    study: Annotated[Path, typer.Argument(help="The study file.", metavar="STUDY")],
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Time a few steps of each placement.")
    ] = False,
    pilot: Annotated[
        Path | None,
        typer.Option(help="A run folder whose spread over seeds is taken.", metavar="RUN"),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show the placements of a study, what each costs, and what its seeds can tell."""
    from loratlas.analysis.power import power_of, to_json

    spread = None if pilot is None else _read_pilot(pilot)
    plan, num_seeds = _plan(study, calibrate)
    power = power_of(num_seeds, len(plan["placements"]) - 1, spread)
    plan["power"] = to_json(power)
    if json:
        print_json(plan)
    else:
        _show(plan)


def _plan(file: Path, calibrate: bool) -> tuple[dict[str, Any], int]:
    from loratlas.cli.progress import TerminalListener
    from loratlas.study import planning
    from loratlas.study.request import read_anatomy
    from loratlas.study.resolve import resolve_study
    from loratlas.study.spec import load_study

    spec = load_study(file)
    anatomy = read_anatomy(spec.model)
    rows = planning.read_rows(spec)
    if rows.model.num_labels is not None:
        anatomy = read_anatomy(rows.model)
    placements = resolve_study(spec, anatomy)
    seconds = None
    if calibrate:
        with TerminalListener() as listener:
            seconds = planning.calibrate(spec, placements, rows, listener)
    plan = planning.plan_study(spec, anatomy, placements, rows=rows, seconds=seconds)
    return plan, len(spec.seeds)


def _read_pilot(run: Path) -> "Pilot":
    from loratlas.analysis.power import pilot_of
    from loratlas.analysis.summary import results
    from loratlas.errors import RunFolderError
    from loratlas.study.folder import open_run

    with closing(open_run(run)) as store:
        found = pilot_of(results(store), str(run))
    if found is None:
        raise RunFolderError(
            f"{run}: tells no spread over seeds; a pilot needs a placement beside its baseline "
            "with at least two seeds of both"
        )
    return found


def _show(plan: dict[str, Any]) -> None:
    from loratlas.report.plans import plan_notes, plan_tables

    print_rich(*plan_tables(plan))
    for name, found in plan["placements"].items():
        for warning in found["warnings"]:
            print_rich(f"{name}: {warning['code']}: {warning['message']}")
    print_rich(*plan_notes(plan))
