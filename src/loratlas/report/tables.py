"""How results look as tables: in the terminal and in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

UNKNOWN = "-"


def results_table(results: Mapping[str, Any]) -> Table:
    """Return what was learned: one line a placement, the untuned base first."""
    table = Table(title=f"{results['study']}: {results['split']} rows", title_justify="left")
    table.add_column("placement")
    for header in ("parameters", "of model", "rate", "loss", "95% interval", "perplexity"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("against baseline", justify="right", no_wrap=True)
    table.add_column("trials", justify="right", no_wrap=True)
    base = results["base"]
    table.add_row(
        "[dim]untuned base[/dim]", "0", "", "", figure(base["loss"]), "",
        figure(base["perplexity"], 2), "", "",
    )  # fmt: skip
    contrasts = {contrast["placement"]: contrast for contrast in results["contrasts"]}
    for name, found in results["placements"].items():
        table.add_row(escape(name), *_result_cells(found, contrasts.get(name)))
    return table


def cost_table(results: Mapping[str, Any]) -> Table:
    """Return what each placement costs: measured alone, by a probe."""
    table = Table(title="cost of one trial, each placement probed alone", title_justify="left")
    table.add_column("placement")
    for header in (
        "sites", "rank", "less than full tuning", "less than baseline",
        "ms per step", "tokens/s", "peak memory",
    ):  # fmt: skip
        table.add_column(header, justify="right", no_wrap=True)
    for name, found in results["placements"].items():
        table.add_row(escape(name), *_cost_cells(found))
    return table


def notes(results: Mapping[str, Any]) -> list[str]:
    """Return the sentences that the tables are to be read with."""
    lines = [
        f"Loss: sum of nats over sum of scored tokens. Intervals: {results['interval_over']}.",
        "Against baseline: difference of losses, paired by seed; below zero is better.",
    ]
    lines += [
        f"{name}: {found['num_failed']} of {found['num_trials']} trials diverged or failed; "
        "its mean is over the others."
        for name, found in results["placements"].items()
        if found["num_failed"]
    ]
    return lines


def figure(value: float | None, digits: int = 4) -> str:
    """Return a number with so many decimals, a dash where it is unknown."""
    return UNKNOWN if value is None else f"{value:,.{digits}f}"


def _result_cells(found: Mapping[str, Any], contrast: Mapping[str, Any] | None) -> list[str]:
    rate = found["learning_rate"]
    done = found["num_trials"] - found["num_failed"]
    trials = str(done) if not found["num_failed"] else f"{done} of {found['num_trials']}"
    return [
        f"{found['trainable_parameters']:,}",
        f"{found['percent_of_base_and_adapters']:.2f}%",
        UNKNOWN if rate is None else f"{rate:g}",
        figure(found["loss"]),
        _interval(found["loss_interval"]),
        figure(found["perplexity"], 2),
        "baseline" if contrast is None else _difference(contrast),
        trials,
    ]


def _cost_cells(found: Mapping[str, Any]) -> list[str]:
    step = found["seconds_per_step"]
    memory = found["peak_memory_bytes"]
    against = found["percent_saved_against_baseline"]
    return [
        str(found["num_sites"]),
        ", ".join(map(str, found["ranks"])),
        f"{found['percent_saved_against_full_fine_tuning']:.2f}%",
        UNKNOWN if against is None else f"{against:.2f}%",
        figure(None if step is None else 1000 * step, 1),
        figure(found["tokens_per_second"], 0),
        UNKNOWN if memory is None else f"{memory / 2**20:,.0f} MiB",
    ]


def _difference(contrast: Mapping[str, Any]) -> str:
    if contrast["difference"] is None:
        return UNKNOWN
    text = f"{contrast['difference']:+.4f}"
    interval = contrast["interval"]
    return text if interval is None else f"{text} {_interval(interval, '+')}"


def _interval(interval: Sequence[float] | None, sign: str = "") -> str:
    if interval is None:
        return UNKNOWN
    return f"[{interval[0]:{sign}.4f}, {interval[1]:{sign}.4f}]"


def plan_table(plan: Mapping[str, Any]) -> Table:
    """Return what each placement of a study costs before anything is spent."""
    table = Table(
        title=f"{plan['study']} on {plan['model']} ({plan['base_parameters']:,} parameters)",
        title_justify="left",
    )
    table.add_column("placement")
    table.add_column("rule")
    for header in (
        "sites", "rank", "parameters", "to match", "of model", "less than full tuning",
        "less than baseline", "adapter",
    ):  # fmt: skip
        table.add_column(header, justify="right", no_wrap=True)
    for name, found in plan["placements"].items():
        table.add_row(escape(name), escape(found["rule"]), *_plan_cells(found))
    return table


def _plan_cells(found: Mapping[str, Any]) -> list[str]:
    difference = found["difference_to_match"]
    return [
        str(found["num_sites"]),
        ", ".join(map(str, found["ranks"])),
        f"{found['trainable_parameters']:,}",
        "" if difference is None else f"{difference:+,}",
        f"{found['percent_of_base_and_adapters']:.2f}%",
        f"{found['percent_saved_against_full_fine_tuning']:.2f}%",
        f"{found['percent_saved_against_baseline']:.2f}%",
        f"{found['adapter_bytes'] / 2**20:,.1f} MiB",
    ]
