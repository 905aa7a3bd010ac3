import io

from rich.console import Console

from loratlas.report.measured import measure_tables


def tables(base, **placements) -> list[str]:
    drawn = []
    for table in measure_tables({"base": base, "placements": placements}):
        file = io.StringIO()
        Console(width=80, file=file).print(table)
        drawn.append(file.getvalue())
    return drawn


def line(text, name):
    return next(line for line in text.splitlines() if name in line)


def of_task(mean, interval=None, truncated=0):
    return {
        "mean": mean,
        "interval": interval,
        "values": {},
        "num_questions": 1000,
        "num_truncated": truncated,
    }


def test_tasks_and_forgetting_have_tables_of_their_own():
    strict, flexible = "exact_match,strict-match", "exact_match,flexible-extract"
    base = {
        "tasks": {"lm_eval:gsm8k": {strict: of_task(0.0, truncated=3), flexible: of_task(0.125)}},
        "forgetting": {"loss": 2.0, "num_rows": 200, "num_tokens": 4000},
    }
    placement = {
        "tasks": {"lm_eval:gsm8k": {strict: of_task(0.5, [0.4, 0.6]), flexible: of_task(None)}},
        "forgetting": {"before": 2.0, "after": 2.25, "difference": 0.25, "interval": [0.15, 0.35]},
    }
    task, forgetting = tables(base, a=placement)
    assert "lm_eval:gsm8k: 1,000 questions, 3 prompts cut" in task
    assert line(task, "untuned base").split()[2:] == ["0.0000", "0.1250"]
    assert line(task, "a ").split() == ["a", "0.5000", "±", "0.1000", "-"]
    assert "forgetting: loss on 200 rows" in forgetting
    assert line(forgetting, "a ").split() == ["a", "2.0000", "2.2500", "+0.2500", "±", "0.1000"]
    assert all(len(row) <= 80 for row in (task + forgetting).splitlines())


def test_a_task_that_is_not_measured_yet_has_no_table():
    base = {"tasks": {"lm_eval:gsm8k": None}, "forgetting": None}
    assert tables(base, a={"tasks": {"lm_eval:gsm8k": None}, "forgetting": None}) == []


def test_many_figures_are_spread_over_tables():
    figures = {f"metric_{number}": of_task(0.5) for number in range(4)}
    base = {"tasks": {"lm_eval:x": figures}, "forgetting": None}
    first, second = tables(base)
    assert "metric_2" in first
    assert "metric_3" in second
