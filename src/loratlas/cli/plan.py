"""``loratlas plan``: what a study asks for and costs, before anything is spent."""

from pathlib import Path
from typing import Annotated

import typer

from loratlas.cli.output import JsonOption, print_json, print_rich


def command(
    study: Annotated[Path, typer.Argument(help="The study file.", metavar="STUDY")],
    json: JsonOption = False,
) -> None:
    """Show the placements of a study, their parameters and bytes, and how many trials it takes."""
    from loratlas.anatomy.read import read
    from loratlas.study.planning import plan_study
    from loratlas.study.resolve import resolve_study
    from loratlas.study.spec import load_study

    spec = load_study(study)
    anatomy = read(
        spec.model.name,
        revision=spec.model.revision,
        trust_remote_code=spec.model.trust_remote_code,
    )
    plan = plan_study(spec, anatomy, resolve_study(spec, anatomy))
    if json:
        print_json(plan)
        return

    from loratlas.report.tables import plan_table

    print_rich(plan_table(plan))
    for name, found in plan["placements"].items():
        for warning in found["warnings"]:
            print_rich(f"{name}: {warning['code']}: {warning['message']}")
    print_rich(f"{plan['num_trials']} trials")
