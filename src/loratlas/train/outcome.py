"""What a training run and a probe report: plain data, no torch."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Trajectory:
    """Where a trial's parameters were while it trained: one entry for each step with a change.

    Attributes:
        policy: what moved them.
        steps: optimiser steps after which something changed, ascending; 0 is the beginning.
        ranks: columns that count at each site from then on, by path.
        parameters: live adapter parameters from then on.
        budgets: the most that were allowed then.
        decisions: what was done: step, path, kind (prune, grow, silence), columns by identity.
    """

    policy: str
    steps: tuple[int, ...]
    ranks: dict[str, tuple[int, ...]]
    parameters: tuple[int, ...]
    budgets: tuple[int, ...]
    decisions: tuple[dict[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """Return the trajectory as plain data."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """What a training run went through.

    Attributes:
        losses: training loss of every optimiser step, nats per scored token.
        step_seconds: wall time of every optimiser step.
        trajectory: how its placement moved; None for one that stood still.
        micro_batch: rows of a micro-batch where memory did not suffice for as many as asked, the
            rows of a step being the same; None where it did.
    """

    losses: tuple[float, ...]
    step_seconds: tuple[float, ...]
    trajectory: Trajectory | None = None
    micro_batch: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """What a placement costs when it trains alone.

    Attributes:
        seconds_per_step: median wall time of an optimiser step.
        tokens_per_second: tokens that are not padding, over the timed steps.
        peak_memory_bytes: most memory above the loaded model, None where it cannot be read.
        num_steps: timed steps.
        engine: which engine was probed.
        step_seconds: wall time of every timed step.
        forward_seconds: of the bare base's forward pass over the same rows.
        num_positions: tokens of the timed steps, padding included.
        memory: bytes by phase (load, train, score), as `train.gauge` has them.
        flops: of the longest row, counted and planned, as `train.operations` has them.
        roles: what each family of roles costs alone, as `train.operations` has it.
    """

    seconds_per_step: float
    tokens_per_second: float
    peak_memory_bytes: int | None
    num_steps: int
    engine: str
    step_seconds: list[float] = field(default_factory=list)
    forward_seconds: list[float] = field(default_factory=list)
    num_positions: int | None = None
    memory: dict[str, dict[str, int | None]] = field(default_factory=dict)
    flops: dict[str, Any] = field(default_factory=dict)
    roles: list[dict[str, Any]] = field(default_factory=list)
