"""``loratlas place``: what a rule resolves to, or what an existing LoRA configuration hits."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from loratlas.cli.anatomy import ModelArgument, RemoteCodeOption, RevisionOption
from loratlas.cli.output import JsonOption, print_json, print_rich

if TYPE_CHECKING:
    from loratlas.anatomy.sites import Anatomy
    from loratlas.placement.placement import Placement
    from loratlas.placement.placement_lints import Lint

RankOption = Annotated[int, typer.Option(max=65_536, help="Rank of every part without one.")]
AlphaOption = Annotated[
    float | None, typer.Option(help="LoRA alpha; twice the rank when not given.")
]
ScalingOption = Annotated[
    Literal["constant", "alpha/r", "rslora"],
    typer.Option(help="How the scale follows from alpha and rank."),
]


def command(
    model: ModelArgument,
    rule: Annotated[
        str | None,
        typer.Argument(help="A rule, such as 'attention @ layers(50%..)'.", metavar="RULE"),
    ] = None,
    peft: Annotated[
        Path | None,
        typer.Option(
            help="Instead of a rule: explain this adapter_config.json, or the one in this folder.",
            metavar="FILE",
        ),
    ] = None,
    rank: RankOption = 8,
    alpha: AlphaOption = None,
    scaling: ScalingOption = "constant",
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Training will use gradient checkpointing.")
    ] = False,
    revision: RevisionOption = None,
    trust_remote_code: RemoteCodeOption = False,
    json: JsonOption = False,
) -> None:
    """Show what a rule hits in a model, what it costs, its warnings, and the LoraConfig."""
    from loratlas.anatomy.read import read
    from loratlas.errors import RuleError

    if (rule is None) == (peft is None):
        given = "both were given" if rule is not None else "neither was given"
        raise RuleError(f"place takes a rule, such as all, or --peft FILE: {given}")
    if rule is not None:
        from loratlas.placement.rules import parse

        parse(rule)  # what is wrong with the rule is said before a model is looked for
    anatomy = read(model, revision=revision, trust_remote_code=trust_remote_code)
    if peft is not None:
        _explain(peft, anatomy, checkpointing=checkpointing, json=json)
    elif rule is not None:
        _place(
            rule,
            anatomy,
            rank=rank,
            alpha=2.0 * rank if alpha is None else alpha,
            scaling=scaling,
            checkpointing=checkpointing,
            json=json,
        )


def _place(
    rule: str,
    anatomy: "Anatomy",
    *,
    rank: int,
    alpha: float,
    scaling: Literal["constant", "alpha/r", "rslora"],
    checkpointing: bool,
    json: bool,
) -> None:
    from loratlas.placement.lints import lints
    from loratlas.placement.peft_config import config_fields
    from loratlas.placement.placement import place
    from loratlas.placement.rules import parse

    parsed = parse(rule)
    placement = place(anatomy, parsed, rank=rank, alpha=alpha, scaling=scaling)
    found = lints(parsed, placement, anatomy, checkpointing=checkpointing)
    config = config_fields(placement)
    if json:
        print_json(_plain(placement, found, config))
    else:
        _print(placement, found, config)


def _explain(peft: Path, anatomy: "Anatomy", *, checkpointing: bool, json: bool) -> None:
    from loratlas.errors import PlacementError
    from loratlas.placement.explain import explain

    explanation = explain(peft, anatomy, checkpointing=checkpointing)
    if explanation.refusal is not None:
        raise PlacementError(f"{peft}: PEFT refuses this configuration: {explanation.refusal}")
    placement, found = explanation.placement, list(explanation.lints)
    config = _exact_config(placement, explanation.dropout)
    if json:
        targets = explanation.targets_json()
        print_json({**_plain(placement, found, config), "targets": targets})
        return

    from loratlas.report.sites import target_table

    print_rich(target_table(explanation.targets))
    _print(placement, found, config)


def _exact_config(placement: "Placement", dropout: float) -> dict[str, Any] | None:
    """Return the configuration with exact paths, None where it cannot be written."""
    from loratlas.errors import PlacementError
    from loratlas.placement.peft_config import config_fields

    try:
        return config_fields(placement, dropout)
    except PlacementError:
        return None


def _plain(
    placement: "Placement", found: "list[Lint]", config: dict[str, Any] | None
) -> dict[str, Any]:
    warnings = [lint.to_json() for lint in found]
    return {**placement.to_json(), "warnings": warnings, "lora_config": config}


def _print(placement: "Placement", found: "list[Lint]", config: dict[str, Any] | None) -> None:
    from json import dumps

    from loratlas.report.sites import placement_summary, placement_table

    print_rich(placement_summary(placement, placement.anatomy), placement_table(placement))
    for lint in found:
        print_rich(f"{lint.code}: {lint.message}")
    if config is not None:
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
