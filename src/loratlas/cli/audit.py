"""``loratlas audit``: which definition of perplexity would have said what."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loratlas.cli.anatomy import RemoteCodeOption
from loratlas.cli.output import JsonOption, print_json, print_rich
from loratlas.errors import RequestError

if TYPE_CHECKING:
    from loratlas.study.audit_data import NamedRows
    from loratlas.study.audit_run import Asked

_FIGURES = ("LOSS", "PERPLEXITY", "MODEL", "DATA")


def command(
    arguments: Annotated[
        list[str],
        typer.Argument(help="RUN; with --explain: LOSS PERPLEXITY MODEL DATA.", metavar="RUN"),
    ],
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Ask which definition turns a loss into a perplexity."),
    ] = False,
    split: Annotated[
        str, typer.Option(help="Which rows: train, validation or test.", metavar="SPLIT")
    ] = "test",
    batch: Annotated[
        int | None,
        typer.Option(
            min=1, help="Rows of a batch; the study's own, or 8.", metavar="N", show_default=False
        ),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Tokens of a strided window; as many as the model has positions.",
            metavar="N",
            show_default=False,
        ),
    ] = None,
    study: Annotated[
        Path | None,
        typer.Option(help="The run's study file, where its data are not found.", metavar="FILE"),
    ] = None,
    trust_remote_code: RemoteCodeOption = False,
    data_format: Annotated[
        str | None,
        typer.Option("--format", help="Explain: how a row of DATA is read.", metavar="FORMAT"),
    ] = None,
    loss_on: Annotated[
        str | None, typer.Option(help="Explain: what is scored of a row.", metavar="WHAT")
    ] = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Explain: the first so many rows.", metavar="N")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(help="Explain: tokens of a row.", metavar="N")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Recompute every definition of perplexity, and see where it would have misled.

    `audit RUN` scores the base and each trial of a run once and computes every definition from
    the same logits. `audit --explain LOSS PERPLEXITY MODEL DATA` says which definition turns one
    figure into the other.
    """
    only_explain = {
        "--format": data_format,
        "--loss-on": loss_on,
        "--rows": rows,
        "--max-length": max_length,
    }
    if not explain:
        _refuse(only_explain, "belongs to --explain")
        asked = _asked(split, batch, window, study, trust_remote_code)
        _audit(_one_run(arguments), asked, json)
        return
    belonging = {"--study": study, "--trust-remote-code": trust_remote_code or None}
    _refuse(belonging, "belongs to the audit of a run")
    loss, perplexity, model, data = _four(arguments)
    from loratlas.study.audit_data import NamedRows

    named = NamedRows(
        data=data,
        format=data_format,
        loss_on=loss_on,
        num_rows=rows,
        max_length=max_length,
        split=split,
    )
    _explain(loss, perplexity, model, named, 8 if batch is None else batch, window, json)


def _refuse(options: dict[str, Any], why: str) -> None:
    for name, value in options.items():
        if value is not None:
            raise RequestError(f"{name} {why}")


def _one_run(arguments: list[str]) -> Path:
    if len(arguments) != 1:
        hint = " (--explain is missing?)" if len(arguments) == len(_FIGURES) else ""
        raise RequestError(f"audit takes one run folder, not {len(arguments)} arguments{hint}")
    return Path(arguments[0])


def _four(arguments: list[str]) -> list[str]:
    if len(arguments) != len(_FIGURES):
        raise RequestError(
            f"audit --explain takes {' '.join(_FIGURES)}, not {len(arguments)} arguments"
        )
    return arguments


def _asked(
    split: str, batch: int | None, window: int | None, study: Path | None, trust_remote_code: bool
) -> "Asked":
    from loratlas.study.audit_run import Asked

    root = None if study is None else study.absolute().parent
    return Asked(
        split=split, batch=batch, window=window, root=root, trust_remote_code=trust_remote_code
    )


def _audit(run: Path, asked: "Asked", json: bool) -> None:
    from loratlas.analysis.audit import audit
    from loratlas.cli.progress import TerminalListener
    from loratlas.report.audits import audit_notes, audit_tables
    from loratlas.study.audit_run import audit_run
    from loratlas.study.folder import open_run

    with closing(open_run(run)) as store, TerminalListener() as listener:
        found = audit(audit_run(run, store, asked, listener), store.meta("name"))
    if json:
        print_json(found)
    else:
        print_rich(*audit_tables(found), *audit_notes(found))


def _explain(
    loss: str,
    perplexity: str,
    model: str,
    named: "NamedRows",
    batch: int,
    window: int | None,
    json: bool,
) -> None:
    from loratlas.analysis.audit import explanation
    from loratlas.measure.audit.explain import Figure, Given
    from loratlas.measure.audit.explain import explain as explained
    from loratlas.report.audits import explain_notes, explain_tables
    from loratlas.study.audit_named import read_named

    given = Given(
        loss=Figure.parse(loss, "LOSS"), perplexity=Figure.parse(perplexity, "PERPLEXITY")
    )
    readings, num_rows, num_tokens = read_named(model, named, batch=batch, window=window)
    found = explanation(explained(given, readings, batch=batch), readings)
    found = {
        "model": model,
        "data": named.data,
        "num_rows": num_rows,
        "num_tokens": num_tokens,
        "batch": batch,
        **found,
    }
    if json:
        print_json(found)
    else:
        print_rich(*explain_tables(found), *explain_notes(found))
