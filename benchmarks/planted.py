"""Do scorers find where a signal was planted? Run: ``python benchmarks/planted.py``.

A teacher is the bundled model with low-rank changes at a few sites (``teachers.py``); rows are what
it writes. Brute force says first whether these sites are where adapters help: each site is adapted
alone, since other sites may make up for a change as well. Then each scorer reads training rows of
the base, and its precision is the share of the planted sites among as many with its highest values.
"""

from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from machine import described
from studies import Page, options_of, publish, run, table
from teachers import (
    DIVERGENCE,
    MODEL,
    PLANTED,
    PROMPT_TOKENS,
    RANK,
    Change,
    changed,
    chosen_sites,
    planted,
    study_of,
)

from loratlas.allocate.agreement import Floats, oriented
from loratlas.allocate.table import ScoreTable
from loratlas.analysis.recovery import places, precision
from loratlas.analysis.summary import results
from loratlas.anatomy.sites import Site
from loratlas.measure.likelihood import score as likelihood
from loratlas.report.narrow import figure
from loratlas.score.methods import scorers
from loratlas.study.brute_force_values import Trials, read_table
from loratlas.study.folder import open_run
from loratlas.study.groups import SiteGroup
from loratlas.study.progress import Silent
from loratlas.study.request import read_anatomy, read_data
from loratlas.study.score_study import score_study
from loratlas.study.scoring_options import BruteForceOptions, ScoringOptions
from loratlas.study.spec import StudySpec
from loratlas.train.base import Base, load_base, pick_device
from loratlas.train.trial import ModelRef

SIZES = (2, 3, 3)
"""Sites of each planted set."""
# The first has the values of `parameters`; of chance the precision is known.
_LEFT_OUT = ("uniform", "random")
_SET_HEADERS = ("planted", "strength", "base", "teacher", "adapters", "places by brute force")


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What was found of one planted set.

    Attributes:
        changes: what was planted.
        sites: every site that is scored, in the order of the model.
        losses: on the test rows, of the base, of the teacher, and of adapters at the planted sites.
        truth: scores by brute force.
        tables: scores by each scorer.
    """

    changes: Sequence[Change]
    sites: Sequence[Site]
    losses: Mapping[str, float | None]
    truth: ScoreTable
    tables: Sequence[ScoreTable]

    @property
    def wanted(self) -> list[int]:
        """Indices of the planted sites."""
        paths = [site.path for site in self.sites]
        return [paths.index(change.site.path) for change in self.changes]

    def precision(self, scores: ScoreTable) -> float:
        """Return the share of planted sites among as many of the highest values."""
        values = self._values(scores)
        return precision(values, np.isin(np.arange(len(values)), self.wanted))

    def places(self, scores: ScoreTable) -> list[int]:
        """Return the places of the planted sites."""
        return places(self._values(scores), self.wanted)

    def _values(self, scores: ScoreTable) -> Floats:
        return oriented(scores, [site.path for site in self.sites])


def found_of(number: int, folder: Path, *, quick: bool) -> Found:
    """Plant a set, write the teacher's rows, and see what brute force and scorers say."""
    ref = ModelRef(name=MODEL)
    base = load_base(ref, dtype="fp32", base_dropout=0.0, device=pick_device("cpu"))
    anatomy = read_anatomy(ref)
    chosen = chosen_sites(anatomy, SIZES[number], seed=number)
    changes = [planted(base, site, seed=100 * number + each) for each, site in enumerate(chosen)]
    sites = [site for site in anatomy.sites if site.in_block]
    study = study_of(f"planted-{number}", base, changes, sites, folder, quick=quick)
    run(study, folder / "run")
    trials = Trials(
        study=study,
        groups=tuple(SiteGroup(name=site.path, sites=(site,)) for site in sites),
        placements=tuple(site.path for site in sites),
        options=BruteForceOptions(method="add_one_in"),
    )
    with closing(open_run(folder / "run")) as store:
        truth, loss = read_table(store, trials, anatomy), results(store)["placements"]
    return Found(
        changes=changes,
        sites=sites,
        losses={**losses(base, changes, study), "adapters": loss[PLANTED]["loss"]},
        truth=truth,
        tables=[score_study(study, ScoringOptions(method=name), Silent()) for name in methods()],
    )


def losses(base: Base, changes: Sequence[Change], study: StudySpec) -> dict[str, float | None]:
    """Return what base and teacher lose on the teacher's own test rows, nats per token."""
    rows = read_data(study).test.rows
    told = {"collator": base.collator, "device": base.device}
    found = {"base": likelihood(base.model, rows, **told).loss}
    with changed(base, {change.site.path: change.update for change in changes}):
        found["teacher"] = likelihood(base.model, rows, **told).loss
    return found


def methods() -> list[str]:
    """Return the scorers and the trivial predictors that say something of single sites."""
    return [method.name for method in scorers() if method.name not in _LEFT_OUT]


def sets(found: Sequence[Found]) -> Iterator[list[str]]:
    """Yield a row for each planted set: what was planted, and whether brute force finds it."""
    for each in found:
        yield [
            "<br>".join(change.site.path for change in each.changes),
            "<br>".join(f"{change.strength:.2f}" for change in each.changes),
            *(figure(each.losses[name]) for name in ("base", "teacher", "adapters")),
            "<br>".join(map(str, each.places(each.truth))),
        ]


def precisions(found: Sequence[Found]) -> Iterator[list[str]]:
    """Yield a row for each scorer: its precision on each set, and the mean; chance comes last."""
    tables = [[each.truth, *each.tables] for each in found]
    for scores in zip(*tables, strict=True):
        cells = [_cell(one, table) for one, table in zip(found, scores, strict=True)]
        shares = [one.precision(table) for one, table in zip(found, scores, strict=True)]
        yield [scores[0].method, *cells, f"{np.mean(shares):.2f}"]
    chance = [len(each.changes) / len(each.sites) for each in found]
    yield ["chance", *(f"{share:.2f}" for share in chance), f"{np.mean(chance):.2f}"]


def verdict(found: Sequence[Found]) -> str:
    """Return in sentences for which sets brute force puts the planted sites first."""
    missed = [str(number) for number, each in enumerate(found, 1) if each.precision(each.truth) < 1]
    if not missed:
        return "Brute force puts the planted sites first in every set."
    return (
        f"Brute force does not put the planted sites first in set {' and '.join(missed)}: other "
        "sites make up for what was planted there, or do more than it, and a scorer that misses "
        "them there is not wrong."
    )


def page(found: Sequence[Found], command: str) -> str:
    """Return the page of results as Markdown."""
    numbers = [f"set {number}" for number in range(1, len(found) + 1)]
    parts = [
        "# Planted signal: do scorers find it?",
        f"`{command}`. A teacher is {MODEL} with a random change of rank {RANK} at each planted "
        f"site, each strong enough to move predictions by {DIVERGENCE} nats per token alone; its "
        "strength is the Frobenius norm by that of the weight. The teacher goes on from "
        f"beginnings of {PROMPT_TOKENS} tokens; losses are those of its test rows. Adapters: "
        f"trained at the planted sites together. Brute force adapts each of {len(found[0].sites)} "
        "sites alone.",
        described("cpu"),
        table(_SET_HEADERS, sets(found)),
        verdict(found),
        "Precision: the share of the planted sites among as many with the highest scores, ties "
        "broken in every way; behind it the places of the planted sites among all.",
        table(("method", *numbers, "mean"), precisions(found)),
    ]
    return "\n\n".join(parts) + "\n"


def told(options: Namespace) -> tuple[list[Page], list[dict[str, Any]]]:
    """Plant every set; return the page and the figures."""
    quick = " --quick" if options.quick else ""
    name = "planted-quick" if options.quick else "planted"
    found = [
        found_of(number, options.out / f"{name}-{number}", quick=options.quick)
        for number in range(1 if options.quick else len(SIZES))
    ]
    text = page(found, f"python benchmarks/planted.py{quick} --write")
    return [("planted", text)], [_figures(each) for each in found]


def _cell(found: Found, scores: ScoreTable) -> str:
    return f"{found.precision(scores):.2f} ({', '.join(map(str, found.places(scores)))})"


def _figures(found: Found) -> dict[str, Any]:
    return {
        "planted": [
            {"path": each.site.path, "strength": each.strength, "divergence": each.divergence}
            for each in found.changes
        ],
        "losses": dict(found.losses),
        "found": {
            each.method: {"precision": found.precision(each), "places": found.places(each)}
            for each in (found.truth, *found.tables)
        },
        "brute_force": found.truth.to_json(),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Plant, try, score, print, and write where asked to."""
    options = options_of(__doc__, argv, studies=False)
    publish(options, lambda: told(options))


if __name__ == "__main__":
    main()
