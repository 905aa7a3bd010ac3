"""How a plan looks as tables: what each placement is, what it costs, what the seeds can tell."""

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from loratlas.report.tables import UNKNOWN

_UNITS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"))
_MIB, _GIB = 2**20, 2**30


def plan_table(plan: Mapping[str, Any]) -> Table:
    """Return what each placement of a study is, before anything is spent."""
    table = Table(
        title=f"{escape(plan['study'])} on {escape(plan['model'])} "
        f"({plan['base_parameters']:,} parameters)",
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
        table.add_row(escape(name), escape(found["rule"]), *_placement_cells(found))
    return table


def plan_cost_table(plan: Mapping[str, Any]) -> Table:
    """Return what an optimiser step of each placement computes and holds, and a trial's time."""
    table = Table(title="cost of one optimiser step, and of one trial", title_justify="left")
    table.add_column("placement")
    for header in ("forward", "backward", "FLOPs", "peak memory", "above weights", "trial"):
        table.add_column(header, justify="right", no_wrap=True)
    for name, found in plan["placements"].items():
        table.add_row(escape(name), *_cost_cells(found))
    return table


def plan_notes(plan: Mapping[str, Any]) -> list[str]:
    """Return the sentences that a plan is to be read with, plain text."""
    lines = []
    workload = plan["workload"]
    if workload is not None:
        largest = workload["largest_batch"]
        lines.append(
            f"{workload['tokens_per_step']:,.0f} tokens a step, padding included; largest batch "
            f"{largest['rows']} rows of {largest['tokens']} tokens. Read from: {workload['basis']}."
        )
    reasons = dict.fromkeys(found["unknown"] for found in plan["placements"].values())
    lines += [f"Not known: {reason}." for reason in reasons if reason is not None]
    lines += [] if plan["power"] is None else plan["power"]["says"]
    lines.append(_trials(plan))
    return lines


def _trials(plan: Mapping[str, Any]) -> str:
    if plan["seconds"] is None:
        return f"{plan['num_trials']} trials"
    return f"{plan['num_trials']} trials, {duration(plan['seconds'])} of training one after another"


def _placement_cells(found: Mapping[str, Any]) -> list[str]:
    difference = found["difference_to_match"]
    return [
        str(found["num_sites"]),
        ", ".join(map(str, found["ranks"])),
        f"{found['trainable_parameters']:,}",
        "" if difference is None else f"{difference:+,}",
        f"{found['percent_of_base_and_adapters']:.2f}%",
        f"{found['percent_saved_against_full_fine_tuning']:.2f}%",
        f"{found['percent_saved_against_baseline']:.2f}%",
        f"{found['adapter_bytes'] / _MIB:,.1f} MiB",
    ]


def _cost_cells(found: Mapping[str, Any]) -> list[str]:
    memory = found["memory"]
    seconds = found["seconds"]
    return [
        operations(found["forward_flops_per_step"]),
        operations(found["backward_flops_per_step"]),
        operations(found["flops_per_step"]),
        size(found["peak_memory_bytes"]),
        size(None if memory is None else found["peak_memory_bytes"] - memory["weights"]),
        UNKNOWN if seconds is None else duration(seconds),
    ]


def operations(flops: float | None) -> str:
    """Return a number of operations with a unit, such as ``96.4 G``."""
    if flops is None:
        return UNKNOWN
    for unit, letter in _UNITS:
        if flops >= unit:
            return f"{flops / unit:,.1f} {letter}"
    return f"{flops:,.0f}"


def size(num_bytes: int | None) -> str:
    """Return bytes as MiB, from 10 GiB on as GiB."""
    if num_bytes is None:
        return UNKNOWN
    if num_bytes >= 10 * _GIB:
        return f"{num_bytes / _GIB:,.1f} GiB"
    return f"{num_bytes / _MIB:,.1f} MiB"


def duration(seconds: float) -> str:
    """Return a time as a person says it: ``4.2 s``, ``12 min``, ``3.1 h``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.1f} h"
