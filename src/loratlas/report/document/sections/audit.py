"""Which definition of perplexity would have said what?"""

from collections.abc import Iterator, Sequence
from typing import Any

from loratlas.report.audits import number as perplexity_text
from loratlas.report.document.charts import chart, line_at, mark, names_of, quantity, tooltip
from loratlas.report.document.facts import Facts, Plain
from loratlas.report.document.pieces import (
    UNKNOWN,
    Cell,
    Chart,
    Column,
    Figure,
    Section,
    Table,
    shown,
    text,
)
from loratlas.report.document.style import BLUE, GREY, VERMILLION
from loratlas.report.document.words import listed

_ROW_HEIGHT = 26
_STANDINGS = {
    "same order": (BLUE, "circle"),
    "other order, within noise": (GREY, "square"),
    "contradicts the loss": (VERMILLION, "triangle-up"),
}


def audit(facts: Facts) -> Section:
    """Return the audit that lies in the run folder, or how to get one."""
    title = "Which perplexity?"
    found = facts.audit.audit
    if found is None:
        return Section(name="audit", title=title, words=tuple(_how(facts)))
    variants = [each for each in found["variants"] if each["applies"]]
    rows = [row for variant in variants for row in _rows(variant)]
    return Section(
        name="audit",
        title=title,
        words=(_summary(variants),),
        figures=(_figure(rows, [each["name"] for each in variants]),) if rows else (),
        tables=(_table(found, variants, facts.names),),
    )


def _how(facts: Facts) -> Iterator[str]:
    if facts.audit.why_not:
        yield facts.audit.why_not
    if facts.setting["task"] == "classification":
        yield "This study is of classes, which have no perplexity."
        return
    yield (
        "Perplexity here is exp of the corpus loss. Other definitions are in use, and some would "
        "have put the placements in another order. To see them in this report, run "
        "loratlas audit RUN --json > RUN/audit.json, then loratlas report RUN again, with the "
        "run folder for RUN."
    )


def _summary(variants: Sequence[Plain]) -> str:
    against = [each["name"] for each in variants if each["contradicts"]]
    if not against:
        return (
            f"Of {len(variants)} definitions that apply here, none contradicts the order that the "
            "corpus loss gives."
        )
    verb = "contradicts" if len(against) == 1 else "contradict"
    return (
        f"Of {len(variants)} definitions that apply here, {listed(against)} {verb} the order that "
        "the corpus loss gives, beyond what seeds explain."
    )


def _standing(variant: Plain) -> str:
    if variant["contradicts"]:
        return "contradicts the loss"
    return "same order" if variant["agrees"] else "other order, within noise"


def _rows(variant: Plain) -> Iterator[dict[str, Any]]:
    for placement, ratio in variant["ratio"].items():
        if ratio is not None and ratio > 0:
            yield {
                "definition": variant["name"],
                "placement": placement,
                "ratio": ratio,
                "ratio_text": f"{ratio:.4g}",
                "perplexity": perplexity_text(variant["per_placement"].get(placement)),
                "standing": _standing(variant),
            }


def _figure(rows: Sequence[Plain], names: Sequence[str]) -> Figure:
    domain = [s for s in _STANDINGS if any(row["standing"] == s for row in rows)]
    colours = {"domain": domain, "range": [_STANDINGS[each][0] for each in domain]}
    shapes = {"domain": domain, "range": [_STANDINGS[each][1] for each in domain]}
    legend = {"title": None, "orient": "top", "columns": 2}
    told = tooltip(definition="definition", placement="placement", perplexity="perplexity",
                   ratio_text="over exp(loss)", standing="order")  # fmt: skip
    points = {
        "color": names_of("standing", domain, scale=colours, legend=legend),
        "shape": names_of("standing", domain, scale=shapes, legend=legend),
        "x": quantity("ratio"),
        **told,
    }
    spec = chart(
        rows,
        line_at(1),
        mark("point", points, filled=True, size=70, opacity=0.9),
        height=_ROW_HEIGHT * len(names),
        y=names_of("definition", names),
        x={"title": "perplexity over exp(corpus loss), a point a placement",
           "scale": {"type": "log"}},
    )  # fmt: skip
    return Figure(
        name="audit",
        title="What each definition makes of this run",
        caption="At 1 a definition gives exp of the corpus loss. The colour says whether it puts "
        "the placements in the order of the corpus loss.",
        charts=(Chart(stem="audit", label="definitions", spec=spec),),
    )


def _table(found: Plain, variants: Sequence[Plain], names: Sequence[str]) -> Table:
    def perplexity(value: float | None) -> Cell:
        return shown(value, perplexity_text(value))

    return Table(
        name="audit",
        title=f"Perplexity by definition, {found['num_rows']:,} {found['split']} rows, "
        f"{found['num_tokens']:,} scored tokens",
        columns=[
            Column(name="definition"),
            Column(name="untuned base", numeric=True),
            *(Column(name=name, numeric=True) for name in names),
            Column(name="order of placements"),
        ],
        rows=[
            [
                text(each["name"]),
                perplexity(each["base"]),
                *(perplexity(each["per_placement"].get(name)) for name in names),
                text(_standing(each) if each["ranking"] else UNKNOWN),
            ]
            for each in variants
        ],
        for_paper=True,
    )
