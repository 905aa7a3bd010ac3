"""How is a policy listened to while its trial trains?

The policy sees gradients before they are clipped and decides after optimiser steps. What it decides
is carried out here, on adapters, moments and ages together, held against its budget, and noted.
"""

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

from loratlas.errors import VerificationError
from loratlas.train.outcome import Trajectory
from loratlas.train.packed.aged import AgedAdamW
from loratlas.train.packed.elastic import ElasticSlot, Part, parts
from loratlas.train.packed.slots import Slot
from loratlas.train.policy import Change, Grow, Policy, Prune, Silence
from loratlas.train.trial import TrainingSpec


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
        self._steps: list[int] = []
        self._ranks: list[Mapping[str, int]] = []
        self._parameters: list[int] = []
        self._budgets: list[int] = []
        self._decisions: list[dict[str, Any]] = []
        self._note(0)

    @classmethod
    def of(
        cls, slot: Slot, policy: Policy, learning_rate: float, training: TrainingSpec
    ) -> "Steering":
        """Return a steering with an optimiser of its own."""
        assert isinstance(slot, ElasticSlot), "a placement that moves needs room to move"
        optimiser = AgedAdamW(slot.values, lr=learning_rate, weight_decay=training.weight_decay)
        return cls(slot, policy, optimiser)

    def ended(self, step: int) -> Trajectory:
        """Return how the placement moved, after the last step.

        Raises:
            VerificationError: more parameters are live than its budget allows in the end.
        """
        if self._slot.num_live > self._policy.budget(step):
            self._refuse(step)
        return Trajectory(
            policy=self._policy.name,
            steps=tuple(self._steps),
            ranks={path: tuple(at[path] for at in self._ranks) for path in self._slot.columns},
            parameters=tuple(self._parameters),
            budgets=tuple(self._budgets),
            decisions=tuple(self._decisions),
        )

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
            self._decisions.append({"step": step, **_told(change)})
        if changes:
            self._note(step)

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
        self._steps.append(step)
        self._ranks.append(self._slot.ranks)
        self._parameters.append(self._slot.num_live)
        self._budgets.append(self._policy.budget(step))
        if self._parameters[-1] > self._budgets[-1]:
            self._refuse(step)

    def _refuse(self, step: int) -> None:
        raise VerificationError(
            f"{self._policy.name}: {self._slot.num_live:,} parameters are live after step {step}, "
            f"its budget is {self._policy.budget(step):,}"
        )


def _told(change: Change) -> dict[str, Any]:
    match change:
        case Prune():
            return {"kind": "prune", "path": change.path, "columns": list(change.columns)}
        case Grow():
            return {"kind": "grow", "path": change.path, "count": change.num_columns}
        case Silence():
            return {"kind": "silence", "path": change.path, "columns": sorted(change.columns)}
        case _:
            assert_never(change)
