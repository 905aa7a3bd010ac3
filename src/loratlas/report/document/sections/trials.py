"""How did every trial end: what failed, and what each gave?"""

from collections.abc import Iterator

from loratlas.report.document.facts import Facts
from loratlas.report.document.pieces import Section, Table, columns, number, text
from loratlas.report.document.sections.answer import standing_text


def trials(facts: Facts) -> Section:
    """Return the trials that failed or diverged with their error, then every trial."""
    return Section(
        name="trials",
        title="Trials",
        words=(f"{standing_text(facts.standing).capitalize()}.",),
        tables=tuple(_tables(facts)),
    )


def _tables(facts: Facts) -> Iterator[Table]:
    bad = facts.standing["not_done"]
    if bad:
        yield Table(
            name="failed",
            title="Trials that failed or diverged",
            columns=columns("placement", "rate", "seed", "status", "error",
                            words=("status", "error")),
            rows=[
                [text(each["placement"]), number(each["learning_rate"], "g"),
                 number(each["seed"], "d"), text(each["status"]), text(each["error"])]
                for each in bad
            ],
        )  # fmt: skip
    if facts.trials:
        yield Table(
            name="trials",
            title="Every trial",
            columns=columns("placement", "rate", "seed", "status", "test loss", "validation loss",
                            "accuracy", "seconds", "at chosen rate", "digest",
                            words=("status", "at chosen rate", "digest")),
            rows=[
                [
                    text(each.placement),
                    number(each.record.learning_rate, "g"),
                    number(each.record.seed, "d"),
                    text(each.record.status),
                    number(each.loss.get("test")),
                    number(each.loss.get("validation")),
                    number(each.accuracy, ".3f"),
                    number(each.record.seconds, ".1f"),
                    text("yes" if each.at_chosen_rate else "no"),
                    text(each.record.digest[:12]),
                ]
                for each in facts.trials
            ],
            notes=(
                "Seconds: wall time of its training in this run; trials that train together in a "
                "pack have none of their own.",
            ),
            long=True,
        )  # fmt: skip
