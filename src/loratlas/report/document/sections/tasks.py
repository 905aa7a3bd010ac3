"""What did tasks and forgetting say, beside the loss?"""

from collections.abc import Iterator

from loratlas.report.document.facts import Facts, Plain
from loratlas.report.document.pieces import Cell, Section, Table, columns, interval, number, text
from loratlas.report.measured import questions

_BASE = "untuned base"


def tasks(facts: Facts) -> Section:
    """Return a table a task and one of forgetting; nothing where the study asked for neither."""
    found = [*_task_tables(facts.results), *_forgetting(facts.results)]
    return Section(name="tasks", title="Tasks and forgetting", tables=found)


def _task_tables(results: Plain) -> Iterator[Table]:
    models = {_BASE: results["base"], **results["placements"]}
    for at, (task, base) in enumerate((results["base"].get("tasks") or {}).items(), 1):
        if not base:
            continue
        size = next(iter(base.values()))
        cut = f", {size['num_truncated']:,} prompts cut" if size["num_truncated"] else ""
        headers = [header for metric in base for header in (metric, "95% interval")]
        yield Table(
            name=f"task-{at}",
            title=f"{task}: {questions(size)}{cut}",
            columns=columns("placement", *headers),
            rows=[
                [text(name), *_metrics(found["tasks"].get(task) or {}, list(base))]
                for name, found in models.items()
            ],
            for_paper=True,
        )


def _metrics(found: Plain, metrics: list[str]) -> Iterator[Cell]:
    for metric in metrics:
        value = found.get(metric) or {"mean": None, "interval": None}
        yield number(value["mean"])
        yield interval(value["interval"])


def _forgetting(results: Plain) -> Iterator[Table]:
    base = results["base"].get("forgetting")
    if base is None:
        return
    yield Table(
        name="forgetting",
        title=f"Forgetting: loss on {base['num_rows']:,} rows of other text",
        columns=columns("placement", "before", "after", "difference", "95% interval"),
        rows=[
            [
                text(name),
                number(found["before"]),
                number(found["after"]),
                number(found["difference"], "+.4f"),
                interval(found["interval"], "+.4f"),
            ]
            for name, each in results["placements"].items()
            if (found := each["forgetting"]) is not None
        ],
        notes=("Above zero: the tuned model predicts that text worse than the base did.",),
        for_paper=True,
    )
