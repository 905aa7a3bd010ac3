"""How a plan looks as tables: what each placement is, what it costs, what the seeds can tell."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from loratlas.report.narrow import UNKNOWN, Column, by_placement, percent

_UNITS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"))
_MIB, _GIB = 2**20, 2**30


def plan_tables(plan: Mapping[str, Any]) -> list[Table]:
    """Return what each placement of a study is, and what it costs, before anything is spent."""
    title = f"{plan['study']} on {plan['model']} ({plan['base_parameters']:,} parameters)"
    return [
        by_placement(title, _SITES, plan, folded=("rule",)),
        by_placement("its adapters", _ADAPTERS, plan),
        by_placement("one optimiser step, and one trial", _COST, plan),
    ]


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
    lines += [
        _learned(name, found) for name, found in plan["placements"].items() if found["learned"]
    ]
    lines += [] if plan["power"] is None else plan["power"]["says"]
    lines.append(_trials(plan))
    return lines


def _learned(name: str, found: Mapping[str, Any]) -> str:
    learned = found["learned"]
    if learned["kind"] == "hybrid":
        return (
            f"{name}: its ranks follow from scores by {learned['by']}, which are taken when the "
            "study runs; shown are equal ranks."
        )
    return (
        f"{name}: {learned['by']} moves it while it trains, from {learned['start_parameters']:,} "
        f"parameters to at most {found['trainable_parameters']:,}; shown is where it begins."
    )


def _trials(plan: Mapping[str, Any]) -> str:
    if plan["seconds"] is None:
        return f"{plan['num_trials']} trials"
    return f"{plan['num_trials']} trials, {duration(plan['seconds'])} of training one after another"


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


def _off_match(found: Mapping[str, Any]) -> str:
    difference = found["difference_to_match"]
    return "" if difference is None else f"{difference:+,}"


def _above_weights(found: Mapping[str, Any]) -> str:
    memory = found["memory"]
    return size(None if memory is None else found["peak_memory_bytes"] - memory["weights"])


def _trial_time(found: Mapping[str, Any]) -> str:
    return UNKNOWN if found["seconds"] is None else duration(found["seconds"])


_SITES: list[Column] = [
    ("sites", lambda found: str(found["num_sites"])),
    ("rank", lambda found: ", ".join(map(str, found["ranks"]))),
    ("parameters", lambda found: f"{found['trainable_parameters']:,}"),
    ("off the match", _off_match),
    ("rule", lambda found: found["rule"]),
]
_ADAPTERS: list[Column] = [
    ("of base\nand adapters", lambda found: percent(found, "percent_of_base_and_adapters")),
    (
        "less than\nfull tuning",
        lambda found: percent(found, "percent_saved_against_full_fine_tuning"),
    ),
    ("less than\nbaseline", lambda found: percent(found, "percent_saved_against_baseline")),
    ("bytes\non disk", lambda found: size(found["adapter_bytes"])),
]
_COST: list[Column] = [
    ("forward\nFLOPs", lambda found: operations(found["forward_flops_per_step"])),
    ("backward\nFLOPs", lambda found: operations(found["backward_flops_per_step"])),
    ("peak\nmemory", lambda found: size(found["peak_memory_bytes"])),
    ("above the\nweights", _above_weights),
    ("time of\na trial", _trial_time),
]
