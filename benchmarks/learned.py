"""Do placements that are learned beat adapters everywhere? Run: ``python benchmarks/learned.py``.

A study with learned placements is run to its end. Where the policies of its first seed ended, at
their chosen rates, becomes ordinary placements, and a second study trains these from scratch beside
the baseline, at the same swept rates: what a policy gains by moving is the contrast of the two,
and whether scores say where is that of a scorer and the same scores upside down. Every figure is
`loratlas.analysis`'s. The page is benchmarks/results/NAME.md, NAME that of the study that was run;
a run that was broken off goes on.
"""

import json
import shlex
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine import described
from studies import BUNDLED, Page, derived, options_of, publish, run, signed, smaller, span, table

from loratlas.analysis.arms import arms_of, trials_at_chosen_rate
from loratlas.analysis.contrasts import Contrast, contrast
from loratlas.analysis.moved import Moved, moved
from loratlas.analysis.summary import results
from loratlas.placement.rules import parse
from loratlas.report.conclusions import p_value
from loratlas.report.narrow import UNKNOWN, figure, with_interval
from loratlas.study.folder import open_run
from loratlas.study.spec import StudySpec, load_study
from loratlas.study.store import Store
from loratlas.train.base import pick_device

RETRAINED = "{} retrained"
UPSIDE_DOWN = ("gradient", "inverted")
"""A scorer, and the same scores upside down."""
_HEADERS = (
    "placement", "chosen by", "parameters", "rate", "loss", "difference", "95% interval",
    "p (Holm)", "verdict", "scoring, s", "τ of final ranks",
)  # fmt: skip
_CONTRAST_HEADERS = ("contrast", "difference", "95% interval", "p", "seeds")


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of a study with learned placements.

    Attributes:
        study: the study, as it was run.
        first: its results, as ``loratlas results --json`` has them.
        moves: how its policies moved.
        second: results of the placements where they ended, trained from scratch; None where no
            policy came to its end.
        contrasts: of each policy with its retrained placement, and of a scorer with itself upside
            down, paired by seed and example.
    """

    study: StudySpec
    first: Mapping[str, Any]
    moves: Sequence[Moved]
    second: Mapping[str, Any] | None
    contrasts: Sequence[Contrast]

    @property
    def agreement(self) -> dict[str, float | None]:
        """Rank agreement between seeds, by the name of the policy's placement."""
        return {each.record.name: each.agreement for each in self.moves}


def carried_out(study: StudySpec, out: Path, files: Path) -> Outcome:
    """Run a study, then the placements where its policies ended.

    Args:
        study: the study.
        out: folder for the run folders.
        files: folder for what is made on the way.
    """
    run(study, out / study.name)
    with closing(open_run(out / study.name)) as store:
        ended = final_placements(store, study.seeds[0])
    again = retrained(study, ended, files) if ended else None
    if again is not None:
        run(again, out / again.name)
    return outcome_of(study, out / study.name, None if again is None else out / again.name)


def outcome_of(study: StudySpec, first: Path, second: Path | None) -> Outcome:
    """Read what came of a study from its run folders.

    Args:
        study: the study.
        first: its run folder.
        second: that of the placements where its policies ended; None where there is none.
    """
    with closing(open_run(first)) as one:
        found, moves, again = results(one), moved(one), None
        contrasts = list(contrasts_within(one))
        if second is not None:
            with closing(open_run(second)) as two:
                again = results(two)
                contrasts = [*contrasts_between(one, two), *contrasts]
    return Outcome(study=study, first=found, moves=moves, second=again, contrasts=contrasts)


def contrasts_between(first: Store, second: Store) -> Iterator[Contrast]:
    """Yield what each policy has beyond its retrained placement; the rows are the same."""
    ours, theirs = arms_of(first), arms_of(second)
    for name, arm in ours.by_name.items():
        if (again := theirs.by_name.get(RETRAINED.format(name))) is not None:
            yield contrast(arm, again, ours.num_tokens)


def contrasts_within(store: Store) -> Iterator[Contrast]:
    """Yield what a scorer has beyond the same scores upside down."""
    arms = arms_of(store)
    found = [arms.by_name[name] for name in UPSIDE_DOWN if name in arms.by_name]
    if len(found) == len(UPSIDE_DOWN):
        yield contrast(found[0], found[1], arms.num_tokens)


def final_placements(store: Store, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Return path, rank and alpha of the adapters that each policy's trial of a seed ended with."""
    return {
        name: trial.final
        for name, trials in trials_at_chosen_rate(store).items()
        for trial in trials
        if trial.seed == seed and trial.final and trial.status == "done"
    }


def retrained(
    study: StudySpec, ended: Mapping[str, Sequence[Mapping[str, Any]]], files: Path
) -> StudySpec:
    """Write the study that trains placements from scratch beside the baseline of another."""
    files.mkdir(parents=True, exist_ok=True)
    placements: dict[str, Any] = {study.baseline: str(parse(study.placements[study.baseline].rule))}
    for number, (name, adapters) in enumerate(ended.items()):
        file = files / f"final-{number}.json"
        file.write_text(json.dumps({"placement": adapters}, indent=2) + "\n", encoding="utf-8")
        placements[RETRAINED.format(name)] = {"rule": f"file({file.name})", "match": "none"}
    changes = {
        "name": f"{study.name}-retrained",
        "placements": placements,
        "baseline": study.baseline,
        "hypothesis": None,
    }
    return derived(study.path, changes, files / "retrained.yaml")


def lines(outcome: Outcome) -> Iterator[list[str]]:
    """Yield a row for each placement; a policy's retrained placement stands below it."""
    agreement = outcome.agreement
    second = {} if outcome.second is None else dict(cells(outcome.second))
    for name, row in cells(outcome.first):
        yield [*row, figure(agreement.get(name), 2)]
        if (again := RETRAINED.format(name)) in second:
            yield [*second[again], UNKNOWN]


def cells(found: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Yield what is told of each placement of a run, by name."""
    contrasts = {each["placement"]: each for each in found["contrasts"]}
    for name, placement in found["placements"].items():
        against = contrasts.get(name, {})
        learned = placement["learned"]
        yield (
            name,
            [
                name,
                {"hybrid": "scores", "dynamic": "a policy"}.get(
                    (learned or {}).get("kind"), "rule"
                ),
                f"{placement['trainable_parameters']:,}",
                UNKNOWN if (rate := placement["learning_rate"]) is None else f"{rate:g}",
                with_interval(placement["loss"], placement["loss_interval"]),
                signed(against.get("difference")),
                span(against.get("interval")),
                p_value(against.get("p_adjusted")),
                against.get("verdict", "baseline"),
                figure(placement["selection_seconds"], 2),
            ],
        )


def contrast_lines(contrasts: Sequence[Contrast]) -> Iterator[list[str]]:
    """Yield a row for each contrast."""
    for each in contrasts:
        of = each.estimate
        yield [
            f"{each.placement} less {each.baseline}",
            signed(of.value),
            span(of.interval),
            p_value(of.p_value),
            str(len(each.seeds)),
        ]


def verdicts(found: Mapping[str, Any]) -> str:
    """Return in a sentence which placements are better than the baseline, and which are not."""
    by_verdict: dict[str, list[str]] = {}
    for each in found["contrasts"]:
        by_verdict.setdefault(each["verdict"], []).append(each["placement"])
    better = by_verdict.pop("better", [])
    rest = "; ".join(f"{verdict}: {', '.join(names)}" for verdict, names in by_verdict.items())
    return f"Better than the baseline: {', '.join(better) or 'none'}. Not better: {rest or 'none'}."


def page(outcome: Outcome, command: str) -> str:
    """Return the page of results as Markdown."""
    found, study = outcome.first, outcome.study
    warnings = [line for sweep in found["sweeps"].values() for line in sweep["says"]]
    failed = [
        f"{name}: {each['num_failed']} of {each['num_trials']} trials diverged or failed."
        for name, each in found["placements"].items()
        if each["num_failed"]
    ]
    rates = ", ".join(f"{rate:g}" for rate in study.training.learning_rate)
    parts = [
        f"# Learned placements: {study.name}",
        f"`{command}`. {len(study.seeds)} seeds, rates {rates}, of which the validation rows "
        f"choose one for each placement by {study.sweep_seeds or len(study.seeds)} of them. "
        f"Untuned base: {figure(found['base']['loss'])}.",
        described(pick_device(study.device).type),
        "Loss: nats per scored token of the test rows ± half its 95% interval. Difference: to "
        f"{study.baseline}, paired by seed and example; below zero is better. Scoring: seconds "
        "that are charged to the placement, once. τ: mean rank agreement (Kendall) of the ranks "
        "that a policy ended with, between seeds. Parameters of a policy: the mean over seeds of "
        "what its trials ended with. Retrained: the ranks that the first seed ended "
        "with, trained from scratch in a study of their own beside the baseline.",
        table(_HEADERS, lines(outcome)),
        verdicts(found),
    ]
    if outcome.second is not None:
        parts.append(f"Retrained. {verdicts(outcome.second)}")
    if outcome.contrasts:
        parts += [
            "Contrasts, paired by seed and example; below zero the first is better. Each p stands "
            "by itself.",
            table(_CONTRAST_HEADERS, contrast_lines(outcome.contrasts)),
        ]
    parts += ["\n".join(f"- {line}" for line in each) for each in (failed, warnings) if each]
    return "\n\n".join(parts) + "\n"


def told(options: Namespace) -> tuple[list[Page], list[dict[str, Any]]]:
    """Carry out every study that is asked for; return a page for each, and the figures."""
    pages, figures = [], []
    for file in options.study or BUNDLED:
        study = load_study(file)
        if options.quick:
            study = smaller(file, options.out / f"{study.name}-quick.yaml")
        outcome = carried_out(study, options.out, options.out / f"{study.name}-files")
        pages.append((study.name, page(outcome, command_of(options))))
        figures.append(
            {
                "study": study.name,
                "results": outcome.first,
                "agreement": outcome.agreement,
                "retrained": outcome.second,
                "contrasts": [
                    {
                        "placement": each.placement,
                        "baseline": each.baseline,
                        "difference": each.estimate.value,
                        "interval": each.estimate.interval,
                        "p": each.estimate.p_value,
                        "num_seeds": len(each.seeds),
                    }
                    for each in outcome.contrasts
                ],
            }
        )
    return pages, figures


def command_of(options: Namespace) -> str:
    """Return the command that writes the pages, as it can be given again."""
    studies = [part for file in options.study or () for part in ("--study", str(file))]
    quick = ["--quick"] if options.quick else []
    return shlex.join(["python", "benchmarks/learned.py", *studies, *quick, "--write"])


def main(argv: Sequence[str] | None = None) -> None:
    """Carry out the studies, print their pages, and write where asked to."""
    options = options_of(__doc__, argv, studies=True)
    publish(options, lambda: told(options))


if __name__ == "__main__":
    main()
