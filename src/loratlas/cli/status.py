"""``loratlas status``: where a run stands."""

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from loratlas.cli.output import JsonOption, print_json, print_rich


def command(
    run: Annotated[Path, typer.Argument(help="The run folder.", metavar="RUN")],
    json: JsonOption = False,
) -> None:
    """Show where a run stands: trials done, missing, diverged and failed."""
    from loratlas.study.folder import open_run
    from loratlas.study.standing import standing

    with closing(open_run(run)) as store:
        found = standing(store)
    if json:
        print_json(found)
        return
    if found["num_trials"] is None:
        print_rich("the run has only begun: its trials are not laid out yet")
        return
    print_rich(
        f"{found['study'] or run}: {found['done']} of {found['num_trials']} trials done, "
        f"{found['missing']} missing, {found['diverged']} diverged, {found['failed']} failed"
    )
    for trial in found["not_done"]:
        print_rich(
            f"  {trial['placement']}, rate {trial['learning_rate']:g}, seed {trial['seed']}: "
            f"{trial['error']}"
        )
    if not found["complete"]:
        print_rich("`loratlas run` with the same study and folder goes on")
