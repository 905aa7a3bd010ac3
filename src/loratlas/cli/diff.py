"""``loratlas diff``: how two placements of a model differ."""

from typing import Annotated

import typer

from loratlas.cli.anatomy import ModelArgument, RemoteCodeOption, RevisionOption
from loratlas.cli.output import JsonOption, print_json, print_rich
from loratlas.cli.place import AlphaOption, RankOption, ScalingOption

_SIDE = "A rule, a saved placement, or an adapter_config.json."


def command(
    model: ModelArgument,
    left: Annotated[str, typer.Argument(help=_SIDE, metavar="LEFT")],
    right: Annotated[str, typer.Argument(help=_SIDE, metavar="RIGHT")],
    rank: RankOption = 8,
    alpha: AlphaOption = None,
    scaling: ScalingOption = "constant",
    revision: RevisionOption = None,
    trust_remote_code: RemoteCodeOption = False,
    json: JsonOption = False,
) -> None:
    """Show which sites only one of two placements adapts, and where ranks or alphas differ."""
    from loratlas.anatomy.read import read
    from loratlas.placement.placement import LoraSpec
    from loratlas.placement.written import read_written

    lora = LoraSpec(rank=rank, alpha=2.0 * rank if alpha is None else alpha, scaling=scaling)
    anatomy = read(model, revision=revision, trust_remote_code=trust_remote_code)
    first, second = (read_written(side, anatomy, lora) for side in (left, right))
    found = first.diff(second)
    counts = {"left": first.trainable_parameters, "right": second.trainable_parameters}
    if json:
        print_json({**found.to_json(), "trainable_parameters": counts})
        return

    from loratlas.report.sites import diff_summary, diff_table

    print_rich(diff_summary(first, second, found))
    if found:
        print_rich(diff_table(found))
