"""What came out, in a sentence, and the table behind it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from loratlas.analysis.p_values import p_text
from loratlas.report.document.facts import Facts, Plain
from loratlas.report.document.pieces import (
    Cell,
    Section,
    Table,
    columns,
    interval,
    number,
    shown,
    text,
)
from loratlas.report.document.style import NO_VERDICT
from loratlas.report.document.words import counted, listed, sentence


def headline(facts: Facts) -> str:
    """Return the answer: what holds against the baseline, and what cannot be told."""
    return " ".join(_headline(facts))


def answer(facts: Facts) -> Section:
    """Return the claims and verdicts in words, and every placement in one table."""
    return Section(
        name="answer",
        title="Results",
        words=tuple(_words(facts)),
        tables=(_table(facts),),
    )


def verdict_of(contrast: Plain) -> str:
    """Return the verdict of a contrast, or that there is none."""
    return contrast.get("verdict") or NO_VERDICT


def standing_text(standing: Mapping[str, Any]) -> str:
    """Return how many trials ended, and what became of the others."""
    parts = [f"{counted(standing['done'], 'trial')} done"]
    parts += [
        f"{standing[kind]:,} {kind}" for kind in ("diverged", "failed", "missing") if standing[kind]
    ]
    return ", ".join(parts)


def covered(scopes: Iterable[str | None]) -> str:
    """Return what intervals cover, in words."""
    known = list(dict.fromkeys(scope for scope in scopes if scope))
    return listed(known) if known else "nothing, for there is none"


def _headline(facts: Facts) -> Iterator[str]:
    contrasts: Sequence[Plain] = facts.results["contrasts"]
    if not any(found["loss"] is not None for found in facts.results["placements"].values()):
        yield "No placement has a loss yet, so there is nothing to compare."
        return
    if not contrasts:
        yield "There is one placement, so there is nothing to hold it against."
        return
    baseline = contrasts[0]["baseline"]
    if baseline is None:
        yield "No baseline was scored, so no placement is held against another."
        return
    for claim in facts.results.get("claims") or []:
        yield f"{claim['placement']}: “{claim['hypothesis']}” {_OUTCOMES[claim['outcome']]}."
    groups: dict[str, list[str]] = {}
    for contrast in contrasts:
        groups.setdefault(verdict_of(contrast), []).append(contrast["placement"])
    for verdict, words in _SAID.items():
        if verdict in groups:
            yield _said(groups[verdict], words, baseline)


_SAID = {
    "better": ("is better than {}", "are better than {}"),
    "equivalent": ("is equivalent to {}", "are equivalent to {}"),
    "not inferior": ("is not inferior to {}", "are not inferior to {}"),
    "worse": ("is worse than {}", "are worse than {}"),
    "cannot tell": ("cannot be told from {}", "cannot be told from {}"),
    NO_VERDICT: ("has no verdict against {}", "have no verdict against {}"),
}
_OUTCOMES = {
    "supported": "is supported",
    "contradicted": "is contradicted",
    "cannot tell": "can be neither supported nor contradicted",
}


def _said(names: Sequence[str], words: tuple[str, str], baseline: str) -> str:
    one, several = words
    return f"{listed(names)} {(one if len(names) == 1 else several).format(baseline)}."


def _words(facts: Facts) -> Iterator[str]:
    if not facts.standing["complete"]:
        yield (
            f"This run is not complete ({standing_text(facts.standing)}); what follows is what its "
            "trials say so far."
        )
    for claim in facts.results.get("claims") or []:
        yield f"Claim: {claim['says']}"
    for contrast in facts.results["contrasts"]:
        if contrast.get("says"):
            yield sentence(contrast["says"])


def _table(facts: Facts) -> Table:
    contrasts = {each["placement"]: each for each in facts.results["contrasts"]}
    quality = _quality_names(facts)
    names = ("parameters", "loss", "95% interval", *quality, "difference", "its 95% interval", "p")
    return Table(
        name="placements",
        title=f"Placements, on the {facts.results['split']} rows",
        columns=columns("placement", *names, "verdict", words=("verdict",)),
        rows=[
            [text("untuned base"), *_base(facts, len(quality)), *map(text, [""] * 4)],
            *(
                [text(name), *_figures(found), *_against(contrasts.get(name))]
                for name, found in facts.results["placements"].items()
            ),
        ],
        notes=tuple(_notes(facts)),
        for_paper=True,
    )


def _quality_names(facts: Facts) -> tuple[str, ...]:
    classes = facts.results["base"]["macro_f1"] is not None
    return ("accuracy", "macro F1") if classes else ("perplexity",)


def _quality(found: Plain) -> list[Cell]:
    if found["macro_f1"] is not None:
        return [number(found["accuracy"], ".3f"), number(found["macro_f1"], ".3f")]
    return [number(found["perplexity"], ",.4g")]


def _base(facts: Facts, num_quality: int) -> list[Cell]:
    base = facts.results["base"]
    known = base["loss"] is not None
    quality = _quality(base) if known else [text(None)] * num_quality
    return [number(0, ",d"), number(base["loss"]), text(None), *quality]


def _figures(found: Plain) -> list[Cell]:
    quality = _quality(found)
    return [
        number(found["trainable_parameters"], ",d"),
        number(found["loss"]),
        interval(found["loss_interval"]),
        *quality,
    ]


def _against(contrast: Plain | None) -> list[Cell]:
    if contrast is None:
        return [text(None), text(None), text(None), Cell(text="baseline")]
    p = contrast["p_adjusted"]
    verdict = verdict_of(contrast)
    return [
        number(contrast["difference"], "+.4f"),
        interval(contrast["interval"], "+.4f"),
        shown(p, "" if p is None else p_text(p)),
        Cell(text=verdict, verdict=verdict),
    ]


def _notes(facts: Facts) -> Iterator[str]:
    losses = facts.results["placements"].values()
    yield (
        "Loss: nats per scored prediction over all rows together, mean over seeds; its interval "
        f"covers {covered(each.get('loss_interval_over') for each in losses)}. Difference: against "
        f"{facts.baseline or 'the baseline'}, paired by seed and row, below zero is better; its "
        "interval covers "
        f"{covered(each.get('interval_over') for each in facts.results['contrasts'])}. p: of no "
        "difference, adjusted by Holm over the placements."
    )
    for name, found in facts.results["placements"].items():
        if found["num_failed"]:
            told = "no loss is known" if found["loss"] is None else "the mean is over the others"
            yield (
                f"{name}: {found['num_failed']} of {counted(found['num_trials'], 'trial')} "
                f"diverged or failed; {told}."
            )
