"""How is a policy listened to while its trial trains?

The policy sees gradients before they are clipped and decides after optimiser steps. What it decides
is carried out here, on adapters, moments and ages together, held against its budget, and noted.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, assert_never

from loratlas.errors import VerificationError
from loratlas.train.outcome import Trajectory
from loratlas.train.packed.aged import AgedAdamW
from loratlas.train.packed.columns import Part, parts
from loratlas.train.packed.elastic import ElasticSlot
from loratlas.train.packed.slots import Slot
from loratlas.train.policy import Change, Grow, Policy, Prune, Silence
from loratlas.train.state import State
from loratlas.train.trial import TrainingSpec


@dataclass(kw_only=True, slots=True)
class _Notes:
    """A trajectory as it grows; fields as in `Trajectory`, ranks by step and then by path."""

    steps: list[int] = field(default_factory=list)
    ranks: list[dict[str, int]] = field(default_factory=list)
    parameters: list[int] = field(default_factory=list)
    budgets: list[int] = field(default_factory=list)
    decisions: list[dict[str, Any]] = field(default_factory=list)


class Steering:
    """A trial whose placement moves, with what moves it.

    Args:
        slot: its adapters.
        policy: what decides.
        optimiser: of the slot's values.

    Raises:
        VerificationError: the trial begins above the policy's budget.
    """

    def __init__(self, slot: ElasticSlot, policy: Policy, optimiser: AgedAdamW) -> None:
        self.optimiser = optimiser
        self._slot = slot
        self._policy = policy
        self._followers = [
            parts(slot.placement, slot.form, vector) for vector in optimiser.followers
        ]
        self._notes = _Notes()
        self._note(0)

    @classmethod
    def of(
        cls, slot: Slot, policy: Policy, learning_rate: float, training: TrainingSpec
    ) -> "Steering":
        """Return a steering with an optimiser of its own."""
        assert isinstance(slot, ElasticSlot), "a placement that moves needs room to move"
        optimiser = AgedAdamW(slot.values, lr=learning_rate, weight_decay=training.weight_decay)
        return cls(slot, policy, optimiser)

    def trajectory(self) -> Trajectory:
        """Return how the placement moved so far."""
        notes = self._notes
        return Trajectory(
            policy=self._policy.name,
            steps=tuple(notes.steps),
            ranks={path: tuple(at[path] for at in notes.ranks) for path in self._slot.columns},
            parameters=tuple(notes.parameters),
            budgets=tuple(notes.budgets),
            decisions=tuple(notes.decisions),
        )

    def state(self) -> State:
        """Return what is known beside the slot: moments, what the policy knows, and the notes."""
        known = {"moments": self.optimiser.moments(), "policy": self._policy.state()}
        return State.joined(known, asdict(self._notes))

    def restore(self, state: State) -> None:
        """Know what was known before; the slot is restored by itself."""
        self.optimiser.restore(state.part("moments"))
        self._policy.restore(state.part("policy").on(self._slot.values.device))
        self._notes = _Notes(**state.own)

    def after_backward(self, step: int) -> None:
        """Let the policy see the gradients of a step, counted from 1."""
        self._slot.pull(self._policy.orthogonality)
        if self._policy.form == "product":
            self._policy.observe(step, self._slot.live())

    def after_step(self, step: int) -> None:
        """Carry out what the policy decides after an optimiser step, counted from 1.

        Raises:
            VerificationError: more parameters are live than its budget allows.
        """
        if self._policy.form == "svd":  # while the gates of silent columns show where they went
            self._policy.observe(step, self._slot.live())
        self._slot.settle()
        changes = self._policy.decide(step, self._slot.live())
        for change in changes:
            self._carry_out(change)
            self._notes.decisions.append({"step": step, **self._told(change)})
        if changes:
            self._note(step)
        else:  # the budget may have fallen
            self._require_within_budget(step)

    def _carry_out(self, change: Change) -> None:
        slot, path = self._slot, change.path
        own: Sequence[Part] = [follower[path] for follower in self._followers]
        match change:
            case Prune():
                gone = frozenset(change.columns)
                slot.keep(path, [c for c in slot.columns[path] if c not in gone], own)
            case Grow():
                slot.grow(path, change.num_columns, own)
            case Silence():
                slot.silence(path, change.columns)
            case _:
                assert_never(change)

    def _note(self, step: int) -> None:
        """Put down how things stand after the decisions of a step."""
        notes = self._notes
        notes.steps.append(step)
        notes.ranks.append(self._slot.ranks)
        notes.parameters.append(self._slot.num_live)
        notes.budgets.append(self._policy.budget(step))
        self._require_within_budget(step)

    def _require_within_budget(self, step: int) -> None:
        live, budget = self._slot.num_live, self._policy.budget(step)
        if live > budget:
            raise VerificationError(
                f"{self._policy.name}: {live:,} parameters are live after step {step}, "
                f"its budget is {budget:,}"
            )

    def _told(self, change: Change) -> dict[str, Any]:
        """Return a change that was carried out as plain data, columns by their identity."""
        path = change.path
        match change:
            case Prune():
                return {"kind": "prune", "path": path, "columns": list(change.columns)}
            case Grow():
                grown = self._slot.columns[path][-change.num_columns :]
                return {"kind": "grow", "path": path, "columns": list(grown)}
            case Silence():
                return {"kind": "silence", "path": path, "columns": sorted(change.columns)}
            case _:
                assert_never(change)
