"""What is adapting each role, or each part of the layers, worth?"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from loratlas.analysis.importance import Effect, Importance
from loratlas.analysis.p_values import p_text
from loratlas.report.document.charts import (
    between,
    chart,
    line_at,
    mark,
    names_of,
    quantity,
    tooltip,
)
from loratlas.report.document.facts import Facts
from loratlas.report.document.pieces import (
    UNKNOWN,
    Cell,
    Chart,
    Figure,
    Section,
    Table,
    columns,
    interval,
    number,
    shown,
    text,
)
from loratlas.report.document.style import BLUE, GREEN, ORANGE

_ROW_HEIGHT = 40
_ANSWERS = {
    "add one in": (GREEN, "triangle-up"),
    "leave one out": (BLUE, "square"),
    "linear model": (ORANGE, "diamond"),
}


def important(facts: Facts) -> Section:
    """Return what each group is worth, by role and by layer; nothing where nothing is known."""
    known = {by: found for by, found in facts.importance.items() if list(_effects(found))}
    charts = [each for by, found in known.items() if (each := _chart(by, found)) is not None]
    figure = Figure(
        name="importance",
        title="What adapting a group is worth",
        caption="Reduction of the loss with its 95% interval; right of 0, adapting the group "
        "helps. Add one in: a placement of that group alone, against the untuned base. Leave one "
        "out: one of everything, against one without the group. A linear model takes effects to "
        "add up.",
        choice="by",
        charts=charts,
    )
    return Section(
        name="importance",
        title="What matters",
        words=tuple(dict.fromkeys(line for found in known.values() for line in _said(found))),
        figures=(figure,) if charts else (),
        tables=[_table(by, found) for by, found in known.items()],
    )


def _effects(found: Importance) -> Iterator[tuple[str, Effect]]:
    model = () if found.model is None else found.model.effects
    for answer, effects in zip(
        _ANSWERS, (found.add_one_in, found.leave_one_out, model), strict=True
    ):
        for effect in effects:
            if effect.estimate.value is not None:
                yield answer, effect


def _said(found: Importance) -> Iterator[str]:
    yield from found.says
    if found.model is not None:
        yield from found.model.says
        if found.model.explained is not None:
            share = f"{found.model.explained * 100:.0f}%"
            yield f"By {found.by}, the model explains {share} of the variance between placements."


def _chart(by: str, found: Importance) -> Chart | None:
    rows = [_row(answer, effect) for answer, effect in _effects(found)]
    if not rows:
        return None
    seen = [answer for answer in _ANSWERS if any(row["answer"] == answer for row in rows)]
    names = [group.name for group in found.groups]
    told = tooltip(group=by, answer="answer", shown="reduction", range="95%", p="p (Holm)")
    colours = {"domain": seen, "range": [_ANSWERS[each][0] for each in seen]}
    shapes = {"domain": seen, "range": [_ANSWERS[each][1] for each in seen]}
    legend = {"title": None}
    offset = {"yOffset": names_of("answer", seen)}
    colour = {"color": names_of("answer", seen, scale=colours, legend=legend)}
    shape = {"shape": names_of("answer", seen, scale=shapes, legend=legend)}
    spec = chart(
        rows,
        line_at(0),
        *between(rows, "rule", "x", "low", "high", {**offset, **colour}, strokeWidth=2.5),
        mark(
            "point",
            {"x": quantity("value"), **offset, **colour, **shape, **told},
            filled=True,
            size=100,
            opacity=1,
        ),
        height=_ROW_HEIGHT * len(names),
        y=names_of("group", names),
        x={"title": "reduction of the loss, nats (right of 0: it helps)", "scale": {"zero": True}},
    )
    return Chart(stem=f"importance-{by}", label=by, spec=spec)


def _row(answer: str, effect: Effect) -> Mapping[str, Any]:
    found = effect.estimate
    low, high = found.interval or (None, None)
    return {
        "group": effect.group,
        "answer": answer,
        "value": found.value,
        "low": low,
        "high": high,
        "shown": UNKNOWN if found.value is None else f"{found.value:+.4f}",
        "range": interval(found.interval, "+.4f").text,
        "p": UNKNOWN if effect.p_adjusted is None else p_text(effect.p_adjusted),
    }


def _table(by: str, found: Importance) -> Table:
    return Table(
        name=f"importance-{by}",
        title=f"Worth of each {by}",
        columns=columns(by, "answer", "reduction", "95% interval", "p (Holm)", "placement",
                        "against", words=("answer", "placement", "against")),
        rows=[_cells(answer, effect) for answer, effect in _effects(found)],
        notes=tuple(_notes(found)),
        for_paper=True,
    )  # fmt: skip


def _cells(answer: str, effect: Effect) -> Sequence[Cell]:
    found, p = effect.estimate, effect.p_adjusted
    against = "untuned base" if answer == "add one in" else effect.against
    return [
        text(effect.group),
        text(answer),
        number(found.value, "+.4f"),
        interval(found.interval, "+.4f"),
        shown(p, "" if p is None else p_text(p)),
        text(effect.placement),
        text(against),
    ]


def _notes(found: Importance) -> Iterator[str]:
    yield "p (Holm): of no effect, two-sided, adjusted over the groups of each answer."
    yield from dict.fromkeys(line for _, effect in _effects(found) for line in effect.says)
