"""``loratlas doctor``: whether the installation works."""

import typer

from loratlas.cli.output import JsonOption, print_json, print_rich


def command(json: JsonOption = False) -> None:
    """Train two steps on the bundled model, save, reload, and compare the logits."""
    from loratlas.study.checkup import checkup

    found = checkup()
    if json:
        print_json(found)
    else:
        for name, value in found["environment"].items():
            if value is not None:
                print_rich(f"{name}: {value}")
        for check in found["checks"]:
            print_rich(
                f"{'ok    ' if check['ok'] else 'FAILED'} {check['name']}: {check['detail']}"
            )
    if not found["ok"]:
        raise typer.Exit(1)
