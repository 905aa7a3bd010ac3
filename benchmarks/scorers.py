"""What does each scorer cost, and does it rank groups as brute force does?

Run: ``python benchmarks/scorers.py [--study FILE] [--quick] [--write]``; a table for each study.
Cost: rows, seconds and memory, and the seconds by those of training on as many rows.
Agreement: Kendall's τ with what each group of sites, by role and quarter of the depth, is worth
when it is adapted alone (add_one_in) or left out (leave_one_out), beside predictors that know
neither data nor weights. Brute force is an ordinary run, which goes on where it was broken off.
"""

from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from machine import described
from scoring_cost import REPEATS, methods, subject_for, timed, training_seconds
from studies import BUNDLED, Page, derived, options_of, publish, smaller, span, table

from loratlas.allocate.table import ScoreTable
from loratlas.analysis.agreement import Agreement, Combine, agreements
from loratlas.cli.progress import TerminalListener
from loratlas.report.narrow import UNKNOWN, figure
from loratlas.score.methods import scorers
from loratlas.study.brute_force import brute_force
from loratlas.study.groups import group_sites
from loratlas.study.scoring_options import BRUTE_FORCE, BruteForceOptions
from loratlas.study.spec import StudySpec, load_study

MOST = 1.5
"""What a gradient scorer may take of the time of training on the same rows."""
# Brute force trains 33 placements: one seed that sweeps two rates, and two at the chosen rate, are
# few, and what two cores do in a quarter of an hour.
_SEEDS = {"seeds": 3, "sweep_seeds": 1}
_RATES = slice(1, 3)
_COMBINED: tuple[Combine, ...] = ("mean", "sum")
_HEADERS = (
    *("method", "rows", "seconds", "of training", "MiB", "τ of halves"),
    *(f"τ with {method}, {combine}" for method in BRUTE_FORCE for combine in _COMBINED),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What was found of the scorers of a study.

    Attributes:
        study: the study.
        row_seconds: seconds of training every site on one row.
        tables: of each scorer, with the median of its seconds.
        truths: of brute force, by method.
        found: agreement with each truth, by its method and by what becomes of a group's values.
    """

    study: StudySpec
    row_seconds: float
    tables: Sequence[ScoreTable]
    truths: Mapping[str, ScoreTable]
    found: Mapping[tuple[str, str], Sequence[Agreement]]


def measured(study: StudySpec, out: Path, *, quick: bool) -> Measured:
    """Score a study by every method, try its groups, and hold one against the other.

    Args:
        study: the study.
        out: folder for the run folders.
        quick: whether methods are timed once.
    """
    repeats = 1 if quick else REPEATS
    subject = subject_for(study, "gradient")
    row_seconds = training_seconds(subject, repeats) / len(subject.rows)
    tables = [timed(study, method, repeats) for method in methods()]
    with TerminalListener() as listener:
        planned = [
            (method, out / f"{study.name}-{method}", BruteForceOptions(method=method))
            for method in BRUTE_FORCE
        ]
        truths = {m: brute_force(study, folder, how, listener) for m, folder, how in planned}
    groups = group_sites(subject.sites, subject.anatomy, "role_quarter")
    everything = [*tables, *truths.values()]
    found = {
        (method, combine): agreements(
            truth,
            [each for each in everything if each.method != method],
            groups,
            subject.anatomy,
            seed=0,
            combine=combine,
        )
        for method, truth in truths.items()
        for combine in _COMBINED
    }
    return Measured(study=study, row_seconds=row_seconds, tables=tables, truths=truths, found=found)


def lines(found: Measured) -> Iterator[list[str]]:
    """Yield a row for each scorer, for brute force, and for the trivial predictors."""
    taus: dict[str, list[str]] = {}
    trivial: dict[str, bool] = {}
    for number, each in enumerate(found.found.values()):
        for agreement in each:
            told = taus.setdefault(agreement.method, [UNKNOWN] * len(found.found))
            told[number] = _tau(agreement)
            trivial[agreement.method] = agreement.trivial
    costs = {
        each.method: _cost(each, found.row_seconds)
        for each in (*found.tables, *found.truths.values())
    }
    nothing = ["0", *[UNKNOWN] * 4]
    for method, told in sorted(taus.items(), key=lambda item: trivial[item[0]]):
        yield [method, *(nothing if trivial[method] else costs[method]), *told]


def slow(found: Measured) -> list[str]:
    """Return the gradient scorers that take longer than they may."""
    needs = {each.name: each.needs for each in scorers()}
    return [
        each.method
        for each in found.tables
        if needs[each.method].gradients
        and not needs[each.method].training
        and ratio(each, found.row_seconds) > MOST
    ]


def ratio(scores: ScoreTable, row_seconds: float) -> float:
    """Return the seconds of a scorer by those of training on as many rows as it read."""
    return (scores.cost.seconds or 0.0) / (row_seconds * scores.cost.num_forwards)


def page(found: Sequence[Measured], command: str, repeats: int) -> str:
    """Return the page of results as Markdown."""
    parts = [
        "# Scorers: cost, and agreement with brute force",
        f"`{command}`. Rows: that went through the model, each visit counted. Seconds: the median "
        f"of {repeats} scorings, the model loaded; those of a method that trains are of one. Of "
        "training: the seconds by those of training adapters at every site on as many rows, in "
        "steps of as many as a gradient scorer sends through at once, by the packed engine alone; "
        f"a gradient scorer may take {MOST:g}. MiB: most "
        "memory above what was held before. τ of halves: Kendall's, between two halves of the "
        "rows.",
        "τ with brute force is over groups by role and quarter of the depth, with a 95% interval "
        "for other groups of this kind; of the values of a group's sites the mean is taken, or "
        "the sum. Below brute force stand predictors that know neither data nor weights.",
        described("cpu"),
    ]
    for each in found:
        study = each.study
        rates = ", ".join(f"{rate:g}" for rate in study.training.learning_rate)
        parts += [
            f"## {study.name}",
            f"Training: {1000 * each.row_seconds:.1f} ms a row. Brute force: "
            f"{len(study.seeds)} seeds; rates {rates}, of which validation rows choose by "
            f"{study.sweep_seeds or len(study.seeds)} seed; rank {study.lora.rank} at every site.",
            table(_HEADERS, lines(each)),
            f"Gradient scorers that take more than {MOST:g} times the training: "
            f"{', '.join(slow(each)) or 'none'}.",
        ]
    return "\n\n".join(parts) + "\n"


def told(options: Namespace) -> tuple[list[Page], list[dict[str, Any]]]:
    """Measure the studies that are asked for; return the page and the figures."""
    found = []
    for file in options.study or BUNDLED:
        files = options.out / f"{load_study(file).name}-files"
        study = smaller(file, files / "quick.yaml") if options.quick else load_study(file)
        found.append(measured(tried(study, files), options.out, quick=options.quick))
    names = [f"-{file.stem}" for file in options.study or ()]
    given = "".join(f" --study {file.name}" for file in options.study or ())
    quick = " --quick" if options.quick else ""
    command = f"python benchmarks/scorers.py{given}{quick} --write"
    text = page(found, command, 1 if options.quick else REPEATS)
    return [(f"scorers{''.join(names)}", text)], [_figures(each) for each in found]


def tried(study: StudySpec, files: Path) -> StudySpec:
    """Return a study with the seeds and rates of brute force: not the lowest, not the highest."""
    rates = study.training.learning_rate
    changes = {"training": {"learning_rate": list(rates[_RATES] or rates)}, **_SEEDS}
    return derived(study.path, changes, files / "brute-force.yaml")


def _cost(scores: ScoreTable, row_seconds: float) -> list[str]:
    cost, peak = scores.cost, scores.cost.peak_memory_bytes
    return [
        f"{cost.num_forwards:,}",
        figure(cost.seconds, 2),
        figure(ratio(scores, row_seconds), 2),
        UNKNOWN if peak is None else f"{peak / 2**20:,.0f}",
        figure(scores.agreement, 2),
    ]


def _tau(found: Agreement) -> str:
    if found.tau is None or found.interval is None:
        return figure(found.tau, 2)
    return f"{found.tau:.2f} ({span(found.interval, 2)})"


def _figures(found: Measured) -> dict[str, Any]:
    return {
        "study": found.study.name,
        "training_seconds_per_row": found.row_seconds,
        "costs": {
            each.method: {**asdict(each.cost), "agreement": each.agreement}
            for each in (*found.tables, *found.truths.values())
        },
        "agreements": [
            {"brute_force": method, "combine": combine, **asdict(each)}
            for (method, combine), every in found.found.items()
            for each in every
        ],
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and write where asked to."""
    options = options_of(__doc__, argv, studies=True)
    publish(options, lambda: told(options))


if __name__ == "__main__":
    main()
