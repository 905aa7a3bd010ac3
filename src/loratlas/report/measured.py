"""How tasks and forgetting look as tables in a terminal of 80 columns and more."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from loratlas.report.narrow import figure, narrow_table, with_interval

_MOST_COLUMNS = 3
_BASE = "untuned base"


def measure_tables(results: Mapping[str, Any]) -> list[Table]:
    """Return what was measured beside the loss: a table a task, and one of forgetting."""
    return [*_task_tables(results), *_forgetting_table(results)]


def _task_tables(results: Mapping[str, Any]) -> Iterator[Table]:
    for task, base in results["base"]["tasks"].items():
        metrics = list(base or {})
        for start in range(0, len(metrics), _MOST_COLUMNS):
            yield _task_table(results, task, metrics[start : start + _MOST_COLUMNS])


def _task_table(results: Mapping[str, Any], task: str, metrics: list[str]) -> Table:
    models = {_BASE: results["base"], **results["placements"]}
    rows = [
        (name, [_of_task(found["tasks"][task][metric]) for metric in metrics])
        for name, found in models.items()
    ]
    size = results["base"]["tasks"][task][metrics[0]]
    cut = f", {size['num_truncated']:,} prompts cut" if size["num_truncated"] else ""
    headers = [metric.replace(",", "\n") for metric in metrics]
    return narrow_table(f"{task}: {questions(size)}{cut}", headers, rows)


def questions(size: Mapping[str, Any]) -> str:
    """Return how many questions a task has, in words."""
    count = size["num_questions"]
    return "imported figures" if count is None else f"{count:,} questions"


def _of_task(found: Mapping[str, Any]) -> str:
    return with_interval(found["mean"], found["interval"])


def _forgetting_table(results: Mapping[str, Any]) -> Iterator[Table]:
    base = results["base"]["forgetting"]
    if base is None:
        return
    rows = [
        (name, [figure(text["before"]), figure(text["after"]), _change(text)])
        for name, found in results["placements"].items()
        if (text := found["forgetting"]) is not None
    ]
    title = f"forgetting: loss on {base['num_rows']:,} rows"
    yield narrow_table(title, ("before", "after", "difference"), rows)


def _change(text: Mapping[str, Any]) -> str:
    return with_interval(text["difference"], text["interval"], "+")
