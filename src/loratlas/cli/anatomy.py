"""``loratlas anatomy``: the sites of a model by role and layer."""

from typing import Annotated

import typer

from loratlas.cli.output import JsonOption, print_json, print_rich

ModelArgument = Annotated[
    str,
    typer.Argument(help="Hub name, folder, config.json, or demo:gpt2.", metavar="MODEL"),
]
RevisionOption = Annotated[
    str | None, typer.Option(help="Revision of a hub model.", metavar="REVISION")
]
RemoteCodeOption = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="Let code from the model's repository run."),
]


def command(
    model: ModelArgument,
    revision: RevisionOption = None,
    trust_remote_code: RemoteCodeOption = False,
    json: JsonOption = False,
) -> None:
    """Show where adapters can go in a model, from its configuration alone."""
    from loratlas.anatomy.read import read

    anatomy = read(model, revision=revision, trust_remote_code=trust_remote_code)
    if json:
        print_json({"digest": anatomy.digest, **anatomy.to_json()})
        return

    from loratlas.report.sites import anatomy_summary, role_table

    print_rich(anatomy_summary(anatomy), role_table(anatomy.sites))
