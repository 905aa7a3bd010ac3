"""``loratlas score``: what each site is worth, by a method."""

import json as json_library
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loratlas.cli.output import JsonOption, print_json, print_rich, write_json
from loratlas.errors import RequestError, did_you_mean
from loratlas.numerics import fix_order_of_sums

if TYPE_CHECKING:
    from loratlas.allocate.table import ScoreTable
    from loratlas.score.nulls import Null
    from loratlas.study.scoring_options import BruteForceOptions, ScoringOptions

_LIST = "list"
_TABLE_NAME = "scores.json"


def command(
    study: Annotated[
        Path | None, typer.Argument(help="The study file.", metavar="STUDY", show_default=False)
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="Name of the method; `list` shows them all. add_one_in and leave_one_out try "
            "groups of sites by training.",
            metavar="M",
        ),
    ] = "gradient",
    rows: Annotated[
        int | None,
        typer.Option(
            help="Training rows that are read; 32 when not given, all for a method that trains.",
            metavar="N",
            show_default=False,
        ),
    ] = None,
    only: Annotated[
        str, typer.Option(help="A rule for the sites in question.", metavar="RULE")
    ] = "all",
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=2**32 - 1,
            help="Seed of rows and of the method; 0 when not given. add_one_in and leave_one_out "
            "take the seeds of the study.",
            metavar="S",
            show_default=False,
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(help="An option of the method; may be repeated.", metavar="NAME=VALUE"),
    ] = None,
    null: Annotated[
        list[str] | None,
        typer.Option(
            help="Also score what has nothing to find: labels (targets exchanged between rows) or "
            "weights (untrained models), and say whether the scores differ from those. Six further "
            "scorings each; may be repeated.",
            metavar="NULL",
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="Groups that add_one_in and leave_one_out try: role_quarter (the default), role "
            "or layer.",
            metavar="GROUPS",
            show_default=False,
        ),
    ] = None,
    match: Annotated[
        str | None,
        typer.Option(
            help="What is equal between groups: none (the study's rank at every site, the default) "
            "or parameters.",
            metavar="MATCH",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File for the scores; of add_one_in and leave_one_out the run folder, which then "
            "holds scores.json.",
            metavar="PATH",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Score the sites of a study's model, reading its training rows.

    `loratlas allocate` makes a placement of the scores.
    """
    fix_order_of_sums()
    if method == _LIST:
        _show_methods(json)
        return
    if study is None:
        raise RequestError("give a study file, whose model and training rows are scored")
    from loratlas.study.scoring_options import BRUTE_FORCE

    file = out
    if method in BRUTE_FORCE:
        _refuse(method, {"--rows": rows, "--seed": seed, "--option": option, "--null": null})
        table, file = _tried(study, _brute_force(method, by, match, only), out)
    else:
        _refuse(method, {"--by": by, "--match": match}, only_for=BRUTE_FORCE)
        options = _options(method, rows, only, seed or 0, option or [])
        table = _scored(study, options, _nulls(null or []), out)
    if file is not None:
        write_json(table.to_json(), file)
    _show(table, study, json, file)


def _scored(
    file: Path, options: "ScoringOptions", nulls: "list[Null]", out: Path | None
) -> "ScoreTable":
    from loratlas.cli.progress import TerminalListener
    from loratlas.study.score_study import score_study
    from loratlas.study.spec import load_study

    spec = load_study(file)
    _require_writable(out)
    with TerminalListener() as listener:
        return score_study(spec, options, listener, nulls)


def _tried(file: Path, options: "BruteForceOptions", out: Path | None) -> tuple["ScoreTable", Path]:
    from loratlas.cli.progress import TerminalListener
    from loratlas.study.brute_force import brute_force
    from loratlas.study.spec import load_study

    spec = load_study(file)
    folder = Path("runs") / f"{spec.name}-{options.method}" if out is None else out
    with TerminalListener() as listener:
        return brute_force(spec, folder, options, listener), folder / _TABLE_NAME


def _options(
    method: str, rows: int | None, only: str, seed: int, given: list[str]
) -> "ScoringOptions":
    from loratlas.study.scoring_options import ScoringOptions

    return ScoringOptions(
        method=method, rows=rows, sites=only, seed=seed, options=dict(map(_option, given))
    )


def _option(text: str) -> tuple[str, object]:
    """Read ``rank=32``; a value that is no JSON is text."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise RequestError(f"--option {text}: write NAME=VALUE, such as rank=32")
    try:
        return name, json_library.loads(value)
    except (ValueError, RecursionError):
        return name, value


def _nulls(given: list[str]) -> "list[Null]":
    from loratlas.score.nulls import NULLS

    return [_one_of("--null", each, NULLS) for each in given]


def _brute_force(method: Any, by: str | None, match: str | None, only: str) -> "BruteForceOptions":
    from loratlas.study.groups import BY
    from loratlas.study.scoring_options import BruteForceOptions

    return BruteForceOptions(
        method=method,
        by=_one_of("--by", BY[0] if by is None else by, BY),
        match=_one_of("--match", "none" if match is None else match, ("none", "parameters")),
        sites=only,
    )


def _one_of(option: str, given: str, allowed: tuple[Any, ...]) -> Any:
    if given in allowed:
        return given
    raise RequestError(
        f"{option} {given}: there is no such{did_you_mean(given, allowed)}; it is one of "
        f"{', '.join(allowed)}"
    )


def _refuse(method: str, options: dict[str, object], only_for: tuple[str, ...] = ()) -> None:
    """Refuse options that a method has no use for."""
    for name, value in options.items():
        if value not in (None, []):
            where = f"; it is for {' and '.join(only_for)}" if only_for else ""
            raise RequestError(f"{name}: {method} does not take it{where}")


def _require_writable(file: Path | None) -> None:
    """Refuse a file that cannot be written, before any work is spent."""
    if file is not None and (file.is_dir() or not file.absolute().parent.is_dir()):
        what = "is a folder; give a file" if file.is_dir() else "its folder is not there"
        raise RequestError(f"--out {file}: {what}")


def _show(table: "ScoreTable", study: Path, json: bool, file: Path | None) -> None:
    if json:
        print_json(table.to_json())
        return
    from loratlas.report.scores import score_grid, score_notes, score_title
    from loratlas.study.score_study import anatomy_of
    from loratlas.study.spec import load_study

    grid = score_grid(table, anatomy_of(load_study(study)))
    print_rich(score_title(table), grid, *score_notes(table))
    if file is not None:
        print_rich(f"scores: {file}")


def _show_methods(json: bool) -> None:
    from loratlas.report.scores import method_table
    from loratlas.study.score_study import described_methods

    found = described_methods()
    if json:
        print_json({"methods": found})
    else:
        print_rich(method_table(found))
