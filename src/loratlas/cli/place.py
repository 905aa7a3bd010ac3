"""``loratlas place``: what a rule resolves to."""

from typing import Annotated, Any, Literal

import typer

from loratlas.cli.anatomy import ModelArgument, RemoteCodeOption, RevisionOption
from loratlas.cli.output import JsonOption, print_json, print_rich


def command(
    model: ModelArgument,
    rule: Annotated[
        str, typer.Argument(help="A rule, such as 'attention @ layers(50%..)'.", metavar="RULE")
    ],
    rank: Annotated[int, typer.Option(help="Rank of every part without one.")] = 8,
    alpha: Annotated[
        float | None, typer.Option(help="LoRA alpha; twice the rank when not given.")
    ] = None,
    scaling: Annotated[
        Literal["constant", "alpha/r", "rslora"],
        typer.Option(help="How the scale follows from alpha and rank."),
    ] = "constant",
    revision: RevisionOption = None,
    trust_remote_code: RemoteCodeOption = False,
    json: JsonOption = False,
) -> None:
    """Show what a rule hits in a model, what it costs, its warnings, and the LoraConfig."""
    from loratlas.anatomy.read import read
    from loratlas.placement.lints import lints
    from loratlas.placement.peft_config import config_fields
    from loratlas.placement.placement import place
    from loratlas.placement.rules import parse

    parsed = parse(rule)
    anatomy = read(model, revision=revision, trust_remote_code=trust_remote_code)
    placement = place(
        anatomy,
        parsed,
        rank=rank,
        alpha=2.0 * rank if alpha is None else alpha,
        scaling=scaling,
    )
    found = lints(parsed, placement, anatomy, dropout=0.0)
    config = config_fields(placement)
    if json:
        warnings = [{"code": lint.code, "message": lint.message} for lint in found]
        print_json({**placement.to_json(), "warnings": warnings, "lora_config": config})
        return

    from json import dumps

    from loratlas.report.sites import placement_summary, placement_table

    print_rich(placement_summary(placement, anatomy), placement_table(placement))
    for lint in found:
        print_rich(f"{lint.code}: {lint.message}")
    print_rich("LoraConfig (whole with --json):", dumps(_telling(config), indent=2))


_TELLING = ("r", "lora_alpha", "use_rslora", "fan_in_fan_out")
_LISTS = ("target_modules", "target_parameters", "rank_pattern", "alpha_pattern")
_SHOWN = 4


def _telling(config: dict[str, Any]) -> dict[str, Any]:
    """Return what a person looks for in a LoraConfig; of long lists the first entries."""
    short = {key: config[key] for key in _TELLING}
    for key in _LISTS:
        value = config[key]
        if isinstance(value, list) and len(value) > _SHOWN:
            value = [*value[:_SHOWN], f"... {len(value)} in all"]
        elif isinstance(value, dict) and len(value) > _SHOWN:
            value = {**dict(list(value.items())[:_SHOWN]), "...": f"{len(value)} in all"}
        if value:
            short[key] = value
    return short
