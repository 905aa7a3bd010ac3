"""``loratlas allocate``: scores and a budget in, a placement file out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from loratlas.cli.anatomy import RemoteCodeOption, RevisionOption
from loratlas.cli.output import JsonOption, print_json, print_rich, write_json

if TYPE_CHECKING:
    from loratlas.allocate.allocation import Allocation
    from loratlas.allocate.constraints import Cap, Constraints
    from loratlas.allocate.table import ScoreTable
    from loratlas.anatomy.sites import Anatomy
    from loratlas.placement.placement import LoraSpec, Scaling


def command(
    scores: Annotated[
        Path,
        typer.Argument(help="Scores, as `loratlas score --json` prints them.", metavar="SCORES"),
    ],
    budget: Annotated[
        str,
        typer.Option(
            help="The most that the placement may take: trainable parameters (2M, 1500000), ranks "
            "over all sites (64 ranks), or bytes of the adapter in fp32 (10MiB).",
            metavar="P",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            help="The model, where the name in SCORES is not the one to read it by.",
            metavar="MODEL",
        ),
    ] = None,
    rank: Annotated[
        int | None,
        typer.Option(
            max=65_536,
            help="Rank that alpha, tau and the highest rank go by; no site has to have it. Without "
            "it that of the study that was scored, or 8.",
            show_default=False,
        ),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(
            help="LoRA alpha at --rank; without it what keeps the scale of the study that was "
            "scored, or twice the rank.",
            show_default=False,
        ),
    ] = None,
    scaling: Annotated[
        Literal["constant", "alpha/r", "rslora"] | None,
        typer.Option(
            help="How the scale follows from alpha and rank; without it as in the study that was "
            "scored, or constant.",
            show_default=False,
        ),
    ] = None,
    solver: Annotated[
        Literal["exact", "greedy", "proportional"],
        typer.Option(
            help="exact finds the best placement, greedy a good one; proportional is GoRA's rule, "
            "which does not keep the budget."
        ),
    ] = "exact",
    ranks: Annotated[
        str | None,
        typer.Option(
            help="Ranks that a site may have, 0 among them if it may be left out: 0,4,8,16 or "
            "0,4..16; without it every rank from --min-rank to --max-rank.",
            metavar="LIST",
        ),
    ] = None,
    min_rank: Annotated[
        int | None,
        typer.Option(max=65_536, help="Lowest rank of a site; without it 0, which leaves it out."),
    ] = None,
    max_rank: Annotated[
        int | None,
        typer.Option(max=65_536, help="Highest rank of a site; without it four times --rank."),
    ] = None,
    tie: Annotated[
        list[str] | None,
        typer.Option(
            help="Sites of one layer that share a rank: q,k,v or a rule. May be repeated.",
            metavar="ROLES",
        ),
    ] = None,
    tie_layers: Annotated[
        list[str] | None,
        typer.Option(
            help="Sites of all layers that share a rank: roles or a rule. May be repeated.",
            metavar="ROLES",
        ),
    ] = None,
    cap: Annotated[
        list[str] | None,
        typer.Option(
            help="The most that the sites of a rule may take: 'attention=500k'. May be repeated.",
            metavar="RULE=P",
        ),
    ] = None,
    sites: Annotated[
        int | None, typer.Option(help="Most sites with an adapter.", metavar="N")
    ] = None,
    only: Annotated[
        str | None, typer.Option(help="Choose among the sites of this rule.", metavar="RULE")
    ] = None,
    tau: Annotated[
        float | None,
        typer.Option(
            help="Where a site has one value and no curve, rank r is worth value * log(1 + r/tau); "
            "without it --rank."
        ),
    ] = None,
    revision: RevisionOption = None,
    trust_remote_code: RemoteCodeOption = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Write the placement to this file, for file(...).", metavar="FILE"),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Divide a budget among sites by their scores, and say how near to the best the result is."""
    from loratlas.allocate.allocate import allocate
    from loratlas.allocate.constraints import Constraints, Tie, rule_of_roles
    from loratlas.allocate.saved import read_scores
    from loratlas.cli.quantities import parse_budget, parse_ranks

    amount = parse_budget(budget, "--budget")
    constraints = Constraints(
        ranks=None if ranks is None else parse_ranks(ranks, "--ranks"),
        min_rank=min_rank,
        max_rank=max_rank,
        ties=(
            *(Tie(rule=rule_of_roles(text)) for text in tie or ()),
            *(Tie(rule=rule_of_roles(text), across_layers=True) for text in tie_layers or ()),
        ),
        caps=tuple(map(_cap, cap or ())),
        max_sites=sites,
        only=only,
    )
    _check_rules(constraints)
    table = read_scores(scores)
    allocation = allocate(
        table,
        _anatomy(table, model, revision=revision, trust_remote_code=trust_remote_code),
        amount,
        lora=_lora(table, rank, alpha, scaling),
        constraints=constraints,
        solver=solver,
        tau=tau,
    )
    _tell(allocation, out, json=json)


def _lora(
    table: "ScoreTable", rank: int | None, alpha: float | None, scaling: "Scaling | None"
) -> "LoraSpec":
    """Return what is given, and for the rest what the scores were made with.

    A rank that is given by itself leaves the scale, alpha over rank, as it was.

    Raises:
        DataError: what the scores say of it cannot be.
        PlacementError: what is given cannot be.
    """
    from loratlas.errors import DataError
    from loratlas.placement.placement import LoraSpec

    try:
        known = LoraSpec(**(table.settings.get("lora") or {}))
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"settings.lora of the scores cannot be read: {error}") from None
    rank = known.rank if rank is None else rank
    return LoraSpec(
        rank=rank,
        alpha=known.alpha * rank / known.rank if alpha is None else alpha,
        scaling=scaling or known.scaling,
    )


def _cap(text: str) -> "Cap":
    """Read a cap such as ``attention=500k``."""
    from loratlas.allocate.constraints import Cap
    from loratlas.cli.quantities import parse_budget
    from loratlas.errors import RequestError

    rule, equals, most = text.rpartition("=")
    if not equals or not rule.strip():
        raise RequestError(f"--cap {text}: write a rule and what it may take: attention=500k")
    return Cap(rule=rule.strip(), most=parse_budget(most, f"--cap {rule.strip()}"))


def _check_rules(constraints: "Constraints") -> None:
    """Say what is wrong with a rule before files are looked for."""
    from loratlas.placement.rules import parse

    for tie in constraints.ties:
        parse(tie.rule)
    for cap in constraints.caps:
        parse(cap.rule)
    if constraints.only is not None:
        parse(constraints.only)


def _anatomy(
    table: "ScoreTable", model: str | None, *, revision: str | None, trust_remote_code: bool
) -> "Anatomy":
    from loratlas.anatomy.read import read

    labels = table.settings.get("num_labels")
    return read(
        table.model if model is None else model,
        revision=revision,
        trust_remote_code=trust_remote_code,
        num_labels=labels if isinstance(labels, int) else None,
    )


def _tell(allocation: "Allocation", out: Path | None, *, json: bool) -> None:
    from loratlas.placement.peft_config import config_fields
    from loratlas.placement.placement_lints import placement_lints

    placement = allocation.placement
    found = list(placement_lints(placement))
    plain = {
        **allocation.to_json(),
        "warnings": [lint.to_json() for lint in found],
        "lora_config": config_fields(placement),
    }
    if out is not None:
        write_json(plain, out)
    if json:
        print_json(plain)
        return

    from loratlas.report.allocations import allocation_summary, rank_table
    from loratlas.report.sites import placement_summary

    print_rich(placement_summary(placement, placement.anatomy), allocation_summary(allocation))
    print_rich(rank_table(placement), *allocation.notes)
    for lint in found:
        print_rich(f"{lint.code}: {lint.message}")
    if out is not None:
        print_rich(f'written to {out}; in a rule: file("{out}")')
