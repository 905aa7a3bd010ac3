"""``loratlas export``: a trial of a run for elsewhere, as weights or as a configuration."""

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from loratlas.cli.output import JsonOption, print_json, print_rich


def command(
    run: Annotated[Path, typer.Argument(help="The run folder.", metavar="RUN")],
    trial: Annotated[
        str,
        typer.Argument(
            help="PLACEMENT, PLACEMENT:SEED, or the first characters of a trial's digest.",
            metavar="TRIAL",
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            help="Weights: peft, uniform, merged, vllm. Configurations to train the placement "
            "again: trl, axolotl, llama-factory, unsloth.",
            metavar="TARGET",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="A new folder for it; in exports of the run folder when not given.",
            metavar="DIR",
            show_default=False,
        ),
    ] = None,
    fill: Annotated[
        str | None,
        typer.Option(
            help="Sites that get an adapter of zeros, for uniform and vllm: a rule, or fused for "
            "the other parts of maps that servers join (q, k, v; gate, up).",
            metavar="RULE",
            show_default=False,
        ),
    ] = None,
    push: Annotated[
        str | None,
        typer.Option(
            help="Upload the weights and their model card to this repository of the hub; a new "
            "one is private.",
            metavar="REPO",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write one trained placement for elsewhere.

    Weights that are not copied as they are must give the logits of the trained adapter. A target
    that cannot express the placement is refused, with one that can.
    """
    from loratlas.export.write import export
    from loratlas.study.folder import open_run

    with closing(open_run(run)) as store:
        found = export(run, store, trial, to, out=out, fill=fill, repository=push)
    if json:
        print_json(found)
    else:
        print_rich(*_lines(found))


def _lines(found: dict[str, Any]) -> list[str]:
    lines = [
        f"{found['placement']}, seed {found['seed']}, for {found['target']}: "
        f"{', '.join(found['files'])}",
        found["folder"],
    ]
    if found["logits_differ_by"] is not None:
        lines.insert(
            1, f"logits differ from the trained adapter's by {found['logits_differ_by']:.2g}"
        )
    if found["pushed_to"] is not None:
        lines.append(f"uploaded to {found['pushed_to']}")
    return lines
