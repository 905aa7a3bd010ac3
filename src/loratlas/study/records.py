"""What a run keeps of each placement and trial: plain data, no torch."""

from dataclasses import dataclass, field
from typing import Any, Literal

from loratlas.redaction import redacted

BASE = "base"
"""The name under which the untuned base's scores are kept."""

Status = Literal["done", "diverged", "failed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacementRecord:
    """A placement of the study, as it was resolved.

    Attributes:
        name: its key in the study file.
        digest: of its sites, ranks and scales.
        rule: the rule in canonical text.
        trainable_parameters: of these adapters, exact. Of a placement that moves these are where it
            begins; its budget is in `learned`, and what its trials end with in their records.
        matched_to: the count it was brought near to, None when it was not.
        families: adapter parameters by role family, such as ``{"attention": 2359296}``.
        adapters: path, rank and alpha of every site.
        warnings: code and message of every lint.
        learned: how scores chose its ranks, or what moves them; None for a rule.
    """

    name: str
    digest: str
    rule: str
    trainable_parameters: int
    matched_to: int | None
    families: dict[str, int]
    adapters: list[dict[str, Any]]
    warnings: list[dict[str, str]]
    learned: dict[str, Any] | None = None

    @property
    def budget(self) -> int | None:
        """Most adapter parameters that a placement that moves may end with; None of any other."""
        budget: int | None = (self.learned or {}).get("target_parameters")
        return budget

    @property
    def selection_seconds(self) -> float | None:
        """Seconds that scores, or what a policy reads, took; None for one that takes neither.

        Whoever takes such a placement pays for it once, before its first trial.
        """
        learned = self.learned or {}
        # Runs of earlier versions did not keep the seconds of a policy.
        cost = learned["scores"]["cost"] if learned.get("kind") == "hybrid" else learned
        seconds: float | None = cost.get("seconds")
        return seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialRecord:
    """How one trial went.

    Attributes:
        digest: of its specification: its identity.
        placement_digest: what was trained.
        learning_rate: its peak rate.
        seed: its seed.
        status: done, diverged (the loss stopped being a number) or failed.
        error: why it did not end, None when it did.
        attempts: how often it was begun, those included that were killed.
        engine: which engine trained it.
        seconds: wall time of its training in this run, None for one that was trained in a pack;
            placements are compared by probes.
        losses: training loss of each optimiser step, nats per scored token.
        adapter: folder of the saved adapter, relative to the run folder.
        environment: device, threads and versions that it ran with.
        adapter_bytes: of the saved adapter on disk, weights and configuration.
        memory: bytes by phase (train, score) in the run's process, as `train.gauge` has them; empty
            for one that was trained in a pack.
        micro_batch: rows of one pass where memory was too small for what the study asks for; the
            rows of a step, and the loss over them, are as asked.
        pack: totals of its pack, None where it was trained alone: number, trials, seconds of
            training, memory by phase, tokens of the largest pass, and how often that was halved.
        trajectory: how its placement moved, as `train.outcome` has it; None where it stood still.
        final: path, rank and alpha of every saved adapter where the placement moved.
    """

    digest: str
    placement_digest: str
    learning_rate: float
    seed: int
    status: Status
    error: str | None = None
    attempts: int = 1
    engine: str
    seconds: float | None = None
    losses: list[float] = field(default_factory=list)
    adapter: str | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    adapter_bytes: int | None = None
    memory: dict[str, dict[str, int | None]] = field(default_factory=dict)
    pack: dict[str, Any] | None = None
    micro_batch: int | None = None
    trajectory: dict[str, Any] | None = None
    final: list[dict[str, Any]] | None = None

    @property
    def ended_parameters(self) -> int | None:
        """Adapter parameters that its placement moved to; None where it stood still."""
        return None if self.trajectory is None else int(self.trajectory["parameters"][-1])

    def __post_init__(self) -> None:
        # Whoever keeps, shows or sends an error has it without the secrets that a library put in.
        if self.error is not None:
            object.__setattr__(self, "error", redacted(self.error))


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasurementRecord:
    """What came out of a measure beside the loss.

    Attributes:
        digest: of all that the figures depend on beside the model; figures of one digest compare.
        num_questions: questions that were put, or rows that were scored.
        num_truncated: questions whose prompt was cut to fit the model.
        metrics: the figures of a task; None where one is no number.
        seconds: wall time.
    """

    digest: str
    num_questions: int
    num_truncated: int = 0
    metrics: dict[str, float | None] = field(default_factory=dict)
    seconds: float | None = None
