"""``loratlas recommend``: one placement, with the evidence."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loratlas.cli.output import JsonOption, print_json, print_rich
from loratlas.errors import RequestError, did_you_mean

if TYPE_CHECKING:
    from loratlas.analysis.recommend import Preset


def command(
    run: Annotated[Path, typer.Argument(help="The run folder.", metavar="RUN")],
    max_parameters: Annotated[
        str | None,
        typer.Option(
            help="Trainable parameters: 250000, 250k, 1.5M.", metavar="P", show_default=False
        ),
    ] = None,
    max_memory: Annotated[
        str | None,
        typer.Option(
            help="Peak memory of a training step above the loaded model: 2GiB, 500MB.",
            metavar="BYTES",
            show_default=False,
        ),
    ] = None,
    max_seconds: Annotated[
        str | None,
        typer.Option(
            help="Time of one trial's steps, alone on the machine: 90, 1.5min, 2h.",
            metavar="S",
            show_default=False,
        ),
    ] = None,
    max_loss_increase: Annotated[
        str | None,
        typer.Option(
            help="Increase over the baseline's loss that must be shown not to be reached: 0.02 "
            "(nats per token) or 5% (of the baseline's gain over the untuned base).",
            metavar="X",
            show_default=False,
        ),
    ] = None,
    preset: Annotated[
        str,
        typer.Option(
            help="resource-constrained, balanced or performance-critical.", metavar="NAME"
        ),
    ] = "balanced",
    json: JsonOption = False,
) -> None:
    """Recommend one placement under a budget, with the evidence.

    Of the placements within the budget, some may have the lowest loss and some are shown to lie
    near it; the cheapest of those is taken. Exits 1 where none can be recommended.
    """
    from loratlas.analysis.arms import arms_of
    from loratlas.analysis.budget import Budget
    from loratlas.analysis.costs import costs_of
    from loratlas.analysis.recommend import recommend
    from loratlas.analysis.verdicts import MARGIN
    from loratlas.cli.quantities import parse_count, parse_loss, parse_seconds, parse_size
    from loratlas.report.recommendations import (
        recommendation,
        recommendation_notes,
        recommendation_table,
        unfinished,
    )
    from loratlas.study.folder import open_run
    from loratlas.study.standing import standing

    budget = Budget(
        parameters=None
        if max_parameters is None
        else parse_count(max_parameters, "--max-parameters"),
        memory_bytes=None if max_memory is None else parse_size(max_memory, "--max-memory"),
        seconds=None if max_seconds is None else parse_seconds(max_seconds, "--max-seconds"),
        loss=None
        if max_loss_increase is None
        else parse_loss(max_loss_increase, "--max-loss-increase"),
    )
    with closing(open_run(run)) as store:
        study = store.meta("study") or {}
        found = recommend(
            arms_of(store),
            costs_of(store),
            budget=budget,
            preset=_preset(preset),
            margin=study.get("margin", MARGIN),
        )
        told = recommendation(found, store.meta("name"), unfinished(standing(store)))
    if json:
        print_json(told)
    else:
        print_rich(recommendation_table(told), *recommendation_notes(told))
    raise typer.Exit(0 if found.placement is not None else 1)


def _preset(name: str) -> "Preset":
    from loratlas.analysis.recommend import PRESETS

    for preset in PRESETS:
        if name == preset:
            return preset
    raise RequestError(
        f"--preset {name}: there is no such preset{did_you_mean(name, PRESETS)}; "
        f"it is one of {', '.join(PRESETS)}"
    )
