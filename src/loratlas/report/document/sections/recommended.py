"""Which placement should a person take, by what matters to them?"""

from collections.abc import Iterable

from loratlas.report.document.facts import Facts, Plain
from loratlas.report.document.pieces import Cell, Section, Table, columns, number, text

_BALANCED = "balanced"


def recommended(facts: Facts) -> Section:
    """Return what ``loratlas recommend`` says: the evidence of one preset, a line for each."""
    found = facts.recommended
    told = found.get(_BALANCED) or {}
    return Section(
        name="recommended",
        title="Which to take",
        words=tuple(told.get("evidence") or ()),
        tables=(_table(found.values()),) if found else (),
    )


def _table(found: Iterable[Plain]) -> Table:
    return Table(
        name="recommended",
        title="By what matters, with no limit on the budget",
        columns=columns("what matters", "placement", "why", "cannot be told from it", "more seeds",
                        words=("placement", "why", "cannot be told from it")),
        rows=[_row(each) for each in found],
        notes=(
            "The sentences above are those of balanced. More seeds: how many more a placement "
            "would settle an open comparison, should the truth be what was seen here. With a "
            "limit: loratlas recommend RUN --max-parameters, --max-memory, --max-seconds, "
            "--max-loss-increase.",
        ),
        for_paper=True,
    )  # fmt: skip


def _row(told: Plain) -> list[Cell]:
    return [
        text(told["preset"]),
        text(told["placement"]),
        text(told["verdict"]),
        text(", ".join(told["indistinguishable"])),
        number(told["more_seeds"], "d"),
    ]
