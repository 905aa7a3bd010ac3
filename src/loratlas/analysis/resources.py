"""What did each placement take: bytes on disk, time of a step, memory by phase, operations?

Time, memory and operations are those of a probe, which trains the placement alone. What each
role costs is told as well; `loratlas.train.operations` says what that means. The seconds of a role
are measured where a placement adapts that role alone: a step of it less the bare base's forward
pass over the same rows. Where a placement adapts several roles, its steps do not say which of
them took the time.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from loratlas.analysis.columns import Column, Row, divided, known, table
from loratlas.cost.parameters import adapter_bytes
from loratlas.study.records import TrialRecord
from loratlas.train.outcome import Probe

PHASES = ("load", "train", "score")
_FIGURES = ("before", "peak", "reserved")
_NO_PROBE = Probe(
    seconds_per_step=math.nan,
    tokens_per_second=math.nan,
    peak_memory_bytes=None,
    num_steps=0,
    engine="",
)


def resources(
    num_parameters: int, probe: Probe | None, trials: Iterable[TrialRecord]
) -> dict[str, Any]:
    """Return what a placement took, keys as the ``results`` command documents them.

    Args:
        num_parameters: of its adapters.
        probe: its probe, None where it is missing.
        trials: its trials; those without a saved adapter do not count.
    """
    found = probe or _NO_PROBE
    trials = list(trials)
    sizes = [trial.adapter_bytes for trial in trials if trial.adapter_bytes is not None]
    return {
        "adapter_bytes": {
            "planned": adapter_bytes(num_parameters),
            "on_disk": max(sizes, default=None),
        },
        "step_seconds": _spread(found.step_seconds),
        "memory": {phase: _phase(found.memory.get(phase)) for phase in PHASES},
        "trial_memory": {phase: _highest(trials, phase) for phase in PHASES[1:]},
        "flops": _flops(found.flops),
        "roles": [_role(role, found) for role in found.roles],
    }


def _spread(seconds: Sequence[float]) -> dict[str, Any]:
    """Return the quartiles of timed steps, with the fastest and the slowest."""
    if len(seconds) < 2:
        names = ("median", "lower_quartile", "upper_quartile", "least", "most")
        return dict.fromkeys(names) | {"num_steps": len(seconds)}
    lower, middle, upper = statistics.quantiles(seconds, n=4, method="inclusive")
    return {
        "median": middle,
        "lower_quartile": lower,
        "upper_quartile": upper,
        "least": min(seconds),
        "most": max(seconds),
        "num_steps": len(seconds),
    }


def _phase(phase: Mapping[str, int | None] | None) -> dict[str, int | None]:
    return {f"{name}_bytes": None if phase is None else phase[name] for name in _FIGURES}


def _highest(trials: Iterable[TrialRecord], phase: str) -> dict[str, int | None]:
    """Return the figures of the trial that rose highest in a phase."""
    found = [trial.memory[phase] for trial in trials if phase in trial.memory]
    return _phase(max(found, key=lambda each: each["peak"] or 0, default=None))


def _flops(found: Mapping[str, Any]) -> dict[str, Any]:
    counted, planned = found.get("counted"), found.get("planned")
    return {
        "counted": counted,
        "planned": planned,
        "planned_over_counted": divided(planned, counted),
        "num_tokens": found.get("num_tokens"),
        "unknown": found.get("unknown"),
    }


def _role(role: Mapping[str, Any], probe: Probe) -> dict[str, Any]:
    count = role["parameters"]
    return {
        "role": role["role"],
        "parameters": count,
        "flops_per_parameter_and_token": divided(role["flops_per_token"], count),
        "seconds_per_parameter_and_token": _seconds(probe, count),
        "bytes_per_parameter": divided(role["bytes"], count),
    }


def _seconds(probe: Probe, num_parameters: int) -> float | None:
    """Return what adapting a role takes of a step, None where it shares the step with others."""
    if len(probe.roles) != 1 or not probe.forward_seconds or not probe.num_positions:
        return None
    more = math.fsum(probe.step_seconds) - math.fsum(probe.forward_seconds)
    return more / (num_parameters * probe.num_positions)


def resource_tables(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was taken as tables of described columns: ``{"tables": [...]}``."""
    rows = [{"placement": name, **found} for name, found in results["placements"].items()]
    roles = [
        {"placement": row["placement"], **role}
        for row in rows
        for role in row["resources"]["roles"]
    ]
    tables = [
        table("adapters on disk, and time of a step", _STEP, rows),
        table("peak memory by phase, of the probe", _PEAKS, rows),
        table(
            "memory that the GPU's allocator reserved", [_PLACEMENT, *known(_RESERVED, rows)], rows
        ),
        table("operations of one row, forward and back", [*_FLOPS, *known(_REASON, rows)], rows),
        table("what adapting a role costs", _ROLES, roles),
    ]
    return {"tables": [each for each in tables if len(each["columns"]) > 1]}


def _at(*path: str) -> Any:
    def value(row: Row) -> Any:
        found: Any = row["resources"]
        for key in path:
            found = found[key]
        return found

    return value


_PLACEMENT = Column(
    name="placement", unit="text", meaning="its name in the study", of=lambda row: row["placement"]
)
_STEP = [
    _PLACEMENT,
    Column(
        name="planned bytes",
        unit="bytes",
        meaning="adapter parameters times 4 bytes",
        of=_at("adapter_bytes", "planned"),
    ),
    Column(
        name="bytes on disk",
        unit="bytes",
        meaning="saved weights and configuration; the largest of its trials",
        of=_at("adapter_bytes", "on_disk"),
    ),
    Column(
        name="median step",
        unit="seconds",
        meaning="of the probe's timed steps; the first ones are dropped as warm-up",
        of=_at("step_seconds", "median"),
    ),
    Column(
        name="lower quartile",
        unit="seconds",
        meaning="a quarter of those steps took less",
        of=_at("step_seconds", "lower_quartile"),
    ),
    Column(
        name="upper quartile",
        unit="seconds",
        meaning="a quarter of those steps took more",
        of=_at("step_seconds", "upper_quartile"),
    ),
    Column(
        name="timed steps",
        unit="count",
        meaning="how many steps those figures are of",
        of=_at("step_seconds", "num_steps"),
    ),
]
_PHASE_WORDS = {
    "load": ("loading", "while the base is loaded"),
    "train": ("training", "in a training step, the longest rows among them"),
    "score": ("scoring", "while the longest scored rows are scored"),
}
_PEAKS = [
    _PLACEMENT,
    *(
        Column(
            name=f"{name}, peak",
            unit="bytes",
            meaning=f"most {when}: tensors on a GPU, all of the process on a CPU",
            of=_at("memory", phase, "peak_bytes"),
        )
        for phase, (name, when) in _PHASE_WORDS.items()
    ),
    Column(
        name="training, above model",
        unit="bytes",
        meaning="the peak of training less what was in use when it began",
        of=lambda row: row["peak_memory_bytes"],
    ),
]
_RESERVED = [
    Column(
        name=f"{name}, reserved",
        unit="bytes",
        meaning=f"most that PyTorch's allocator held of the GPU {when}",
        of=_at("memory", phase, "reserved_bytes"),
    )
    for phase, (name, when) in _PHASE_WORDS.items()
]
_FLOPS = [
    _PLACEMENT,
    Column(
        name="tokens",
        unit="count",
        meaning="length of the row, the longest",
        of=_at("flops", "num_tokens"),
    ),
    Column(
        name="counted",
        unit="flops",
        meaning="by PyTorch's FlopCounterMode, with attention and experts in plain steps: of fused "
        "kernels it counts nothing on a CPU",
        of=_at("flops", "counted"),
    ),
    Column(
        name="planned",
        unit="flops",
        meaning="by the cost model, for the same row",
        of=_at("flops", "planned"),
    ),
    Column(
        name="planned / counted",
        unit="ratio",
        meaning="1 where the plan is right",
        of=_at("flops", "planned_over_counted"),
    ),
]
_REASON = [
    Column(
        name="no count, since",
        unit="text",
        meaning="why PyTorch could not count",
        of=_at("flops", "unknown"),
    )
]
_ROLES = [
    _PLACEMENT,
    Column(name="role", unit="text", meaning="family of roles", of=lambda row: row["role"]),
    Column(
        name="parameters",
        unit="count",
        meaning="its adapter parameters in this placement",
        of=lambda row: row["parameters"],
    ),
    Column(
        name="FLOPs / parameter / token",
        unit="number",
        meaning="cost model: a step with the adapters of this role alone, less the bare base's "
        "forward pass; the way back through frozen weights is in it, so roles do not add up",
        of=lambda row: row["flops_per_parameter_and_token"],
    ),
    Column(
        name="ps / parameter / token",
        unit="number",
        meaning="picoseconds, measured: steps of the probe less the bare base's forward pass over "
        "the same rows; only where the placement adapts one role",
        of=lambda row: (
            None
            if row["seconds_per_parameter_and_token"] is None
            else 1e12 * row["seconds_per_parameter_and_token"]
        ),
    ),
    Column(
        name="bytes / parameter",
        unit="number",
        meaning="cost model: peak of a step on the longest rows with this role alone, less that of "
        "the bare base's forward pass; activations kept for the way back are in it",
        of=lambda row: row["bytes_per_parameter"],
    ),
]
