"""What does each scorer say where there is nothing to find? Run: ``python benchmarks/nulls.py``.

Two nulls (`loratlas.score.nulls`): the same rows with their targets exchanged, and an untrained
model of the same configuration. A null stands in for the study once, and should be called
uninformative; the study itself is held against the others. Both what two halves of the rows say
and what the null says is that of ``loratlas score --null``.
"""

import math
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from machine import described
from scoring_cost import methods, subject_for
from studies import BUNDLED, Page, options_of, publish, smaller, table

from loratlas.allocate.agreement import NUM_NULLS, Floats, NullCheck, against_nulls
from loratlas.allocate.table import ScoreTable
from loratlas.report.narrow import UNKNOWN, figure
from loratlas.score.methods import scorer
from loratlas.score.nulls import NULLS, Null, null_subjects, why_no_null
from loratlas.score.run import score
from loratlas.score.scorer import Subject
from loratlas.study.spec import StudySpec, load_study

TITLES = {"labels": "exchanged targets", "weights": "untrained model"}
_NOT_QUICK = ("para",)
_HEADERS = (
    "task",
    "method",
    "study: τ of halves",
    *(
        header
        for null in NULLS
        for header in (
            f"study against {TITLES[null]}",
            f"{TITLES[null]}: τ of halves",
            f"{TITLES[null]} against others",
        )
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Beside:
    """A study and a stand-in without anything to find, both beside draws of one null.

    Attributes:
        stand_in: scores of the stand-in.
        study: how the study's scores stand beside the draws.
        null: how those of the stand-in do.
    """

    stand_in: ScoreTable
    study: NullCheck
    null: NullCheck


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What a method says of a study and of its nulls; a null that it cannot be held against is out.

    Attributes:
        study: name of the study.
        method: name of the method.
        scores: of the study as it is.
        nulls: by null.
    """

    study: str
    method: str
    scores: ScoreTable
    nulls: dict[Null, Beside]


def rows_of(study: StudySpec, names: Sequence[str]) -> Iterator[Row]:
    """Yield what each method says of a study and of its nulls."""
    for name in names:
        method, subject = scorer(name), subject_for(study, name)
        scores = score(method, subject)
        found = {
            null: beside(null, name, subject, scores)
            for null in NULLS
            if why_no_null(null, method) is None
        }
        yield Row(study=study.name, method=name, scores=scores, nulls=found)


def beside(null: Null, name: str, subject: Subject, scores: ScoreTable) -> Beside:
    """Score draws of a null; the last of them stands in for a study, beside the others."""
    method = scorer(name)
    draws = [score(method, each) for each in null_subjects(null, subject, NUM_NULLS + 1)]
    *others, stand_in = draws
    drawn = np.stack([_values(each) for each in others])
    return Beside(
        stand_in=stand_in,
        study=against_nulls(_values(scores), drawn),
        null=against_nulls(_values(stand_in), drawn),
    )


def lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """Yield a row of the table for each method and study; what is called uninformative is bold."""
    for row in rows:
        line = [row.study, row.method, _halves(row.scores)]
        for null in NULLS:
            found = row.nulls.get(null)
            line += [UNKNOWN] * 3 if found is None else _cells(found)
        yield line


def missed(rows: Sequence[Row]) -> list[str]:
    """Return which stand-ins neither halves nor other draws of the null call uninformative."""
    return [
        f"{row.method} ({row.study}, {TITLES[null]})"
        for row in rows
        for null, found in row.nulls.items()
        if found.null.informative and not found.stand_in.uninformative
    ]


def page(rows: Sequence[Row], command: str) -> str:
    """Return the page of results as Markdown."""
    num_checked = sum(len(row.nulls) for row in rows)
    parts = [
        "# Scorers where there is nothing to find",
        f"`{command}`. τ: Kendall's, over all sites. Against: the factor by which the sites' "
        f"values, relative to one another, differ from the nearest of {NUM_NULLS} draws of the "
        "null, and behind the stroke from draw to draw at most; then the mean τ with the draws. "
        "**Bold: the tool calls the scores uninformative**, because two halves of the rows agree "
        "no more than by chance, or because they differ from the draws no more than these do.",
        "Halves that agree show little noise and no worth: shapes and depth alone make them agree. "
        "A method that is not informative against a null gives sites the values that it would give "
        "where nothing is to be learned.",
        described("cpu"),
        table(_HEADERS, lines(rows)),
        f"Of {num_checked} stand-ins without anything to find, {len(missed(rows))} pass for "
        f"informative: {', '.join(missed(rows)) or 'none'}. One in {NUM_NULLS + 1} may at most.",
    ]
    return "\n\n".join(parts) + "\n"


def told(options: Namespace) -> tuple[list[Page], list[dict[str, Any]]]:
    """Score the studies that are asked for, and their nulls; return the page and the figures."""
    names = [name for name in methods() if not (options.quick and name in _NOT_QUICK)]
    rows: list[Row] = []
    for file in options.study or BUNDLED:
        study = load_study(file)
        if options.quick:
            study = smaller(file, options.out / f"{study.name}-files" / "quick.yaml")
        rows += rows_of(study, names)
    given = "".join(f" --study {file.name}" for file in options.study or ())
    quick = " --quick" if options.quick else ""
    stems = "".join(f"-{file.stem}" for file in options.study or ())
    text = page(rows, f"python benchmarks/nulls.py{given}{quick} --write")
    return [(f"nulls{stems}", text)], [_figures(row) for row in rows]


def _values(scores: ScoreTable) -> Floats:
    return np.array([each.value for each in scores.scores])


def _halves(scores: ScoreTable) -> str:
    return _bold(figure(scores.agreement, 2), bool(scores.uninformative))


def _cells(found: Beside) -> list[str]:
    return [_check(found.study), _halves(found.stand_in), _check(found.null)]


def _check(check: NullCheck) -> str:
    apart, among = math.exp(check.distance), math.exp(check.spread)
    text = f"{apart:.2f} / {among:.2f}, τ {figure(check.agreement, 2)}"
    return _bold(text, not check.informative)


def _bold(text: str, is_so: bool) -> str:
    return f"**{text}**" if is_so else text


def _figures(row: Row) -> dict[str, Any]:
    return {
        "study": row.study,
        "method": row.method,
        "agreement": row.scores.agreement,
        "uninformative": list(row.scores.uninformative),
        "nulls": {
            null: {
                "study": {**asdict(found.study), "informative": found.study.informative},
                "stand_in": {
                    **asdict(found.null),
                    "informative": found.null.informative,
                    "halves": found.stand_in.agreement,
                    "uninformative": list(found.stand_in.uninformative),
                },
            }
            for null, found in row.nulls.items()
        },
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Score, print, and write where asked to."""
    options = options_of(__doc__, argv, studies=True)
    publish(options, lambda: told(options))


if __name__ == "__main__":
    main()
