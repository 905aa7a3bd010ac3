"""``loratlas results``: the table of a run."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loratlas.cli.output import JsonOption, print_json, print_rich
from loratlas.errors import RequestError, did_you_mean

if TYPE_CHECKING:
    from loratlas.study.store import Store

_TABLES = ("founding", "resources")


def command(
    run: Annotated[Path, typer.Argument(help="The run folder.", metavar="RUN")],
    table: Annotated[
        str | None,
        typer.Option(
            help="Other tables instead: founding (those of the founding study) or resources "
            "(disk, time, memory by phase, operations, cost per role).",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show what came out of a run: losses with intervals, differences, costs."""
    from loratlas.analysis.summary import results
    from loratlas.report.described import described_notes, described_tables
    from loratlas.report.tables import notes, results_tables
    from loratlas.study.folder import open_run

    if table is not None and table not in _TABLES:
        raise RequestError(
            f"--table {table}: there is no such table{did_you_mean(table, _TABLES)}; "
            f"it is one of {', '.join(_TABLES)}"
        )
    with closing(open_run(run)) as store:
        found = results(store) if table is None else _described(table, store)
    if json:
        print_json(found)
    elif table is None:
        print_rich(*results_tables(found), *notes(found))
    else:
        print_rich(*described_tables(found), *described_notes(found))


def _described(table: str, store: "Store") -> dict[str, Any]:
    from loratlas.analysis.founding import founding_tables
    from loratlas.analysis.resources import resource_tables
    from loratlas.analysis.summary import results

    found = results(store)
    if table == "resources":
        return resource_tables(found)
    study = store.meta("study") or {}
    return founding_tables(
        found, baseline=study.get("baseline"), base_parameters=store.meta("base_parameters")
    )
