"""``loratlas import``: results and adapters that were not made here, as a run."""

from pathlib import Path
from typing import Annotated

import typer

from loratlas.cli.anatomy import RemoteCodeOption, RevisionOption
from loratlas.cli.output import JsonOption, print_json, print_rich


def command(
    source: Annotated[
        Path,
        typer.Argument(
            help="A CSV table, a folder of PEFT's method_comparison results, a PEFT adapter, or "
            "a folder of adapters.",
            metavar="SOURCE",
        ),
    ],
    out: Annotated[Path, typer.Option(help="A new folder for the run.", metavar="RUN")],
    model: Annotated[
        str | None,
        typer.Option(
            help="The base model, to say which sites a LoRA configuration hits; an adapter's own "
            "when not given.",
            metavar="MODEL",
            show_default=False,
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="The placement that the others are held against; the first when not given.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    revision: RevisionOption = None,
    trust_remote_code: RemoteCodeOption = False,
    json: JsonOption = False,
) -> None:
    """Read results that were not made here into a run folder, for results, report and recommend.

    What the source does not say is null there.
    """
    from loratlas.imports.base import BaseModel
    from loratlas.imports.run import import_run

    found = import_run(
        source,
        out,
        BaseModel(name=model, revision=revision, trust_remote_code=trust_remote_code),
        baseline=baseline,
    )
    if json:
        print_json(found)
    else:
        print_rich(*found["notes"], f"{found['num_placements']} placements, "
                   f"{found['num_trials']} trials: {found['run']}")  # fmt: skip
