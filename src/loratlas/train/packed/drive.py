"""What moves the adapters of a pack after a backward pass: optimisers, rates, policies?"""

from collections.abc import Mapping, Sequence

import torch
from transformers import get_scheduler

from loratlas.train.outcome import Trajectory
from loratlas.train.packed.slots import Slot
from loratlas.train.packed.steering import Steering
from loratlas.train.policy import Policy
from loratlas.train.reference import warmup_steps
from loratlas.train.state import State
from loratlas.train.trial import TrainingSpec


class Drive:
    """The optimisers of a pack, and what moves placements after their steps.

    Args:
        slots: the adapters of each trial.
        training: everything but the rates.
        total: optimiser steps in all.
        learning_rates: the peak rate of each slot.
        policies: what moves the placements of some slots, by their number.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        training: TrainingSpec,
        total: int,
        learning_rates: Sequence[float],
        policies: Mapping[int, Policy],
    ) -> None:
        self._slots = slots
        self._steerings = {
            number: Steering.of(slots[number], policy, learning_rates[number], training)
            for number, policy in policies.items()
        }
        optimisers: list[torch.optim.Optimizer] = [s.optimiser for s in self._steerings.values()]
        still = [
            {"params": [slot.values], "lr": learning_rates[number]}
            for number, slot in enumerate(slots)
            if number not in policies
        ]
        self._still: torch.optim.Optimizer | None = None
        if still:
            decay = training.weight_decay
            self._still = torch.optim.AdamW(still, weight_decay=decay, fused=True)
            optimisers.append(self._still)
        warm = warmup_steps(training, total)
        self._driven = [
            (
                optimiser,
                get_scheduler(
                    training.scheduler,
                    optimiser,
                    num_warmup_steps=warm,
                    num_training_steps=total,
                ),
            )
            for optimiser in optimisers
        ]

    def after_backward(self, number: int, step: int) -> None:
        """Show the gradients of a trial, before they are clipped, to what moves it."""
        if number in self._steerings:
            self._steerings[number].after_backward(step)

    def step(self, going: Sequence[int], step: int) -> None:
        """Take an optimiser step; let placements of the trials that go on move after it."""
        for optimiser, scheduler in self._driven:
            optimiser.step()
            scheduler.step()
        for number in going:
            if number in self._steerings:
                self._steerings[number].after_step(step)

    def trajectory(self, number: int) -> Trajectory | None:
        """Return how the placement of a trial moved, None where it stood still."""
        return self._steerings[number].trajectory() if number in self._steerings else None

    def state(self) -> State:
        """Return moments, rates and what policies know."""
        parts = {str(number): self._state_of(number) for number in range(len(self._slots))}
        return State.joined(parts, {"schedules": [each.state_dict() for _, each in self._driven]})

    def restore(self, state: State) -> None:
        """Go on from another drive's state; the slots are restored by themselves."""
        for number in range(len(self._slots)):
            self._restore(number, state.part(str(number)))
        for (optimiser, scheduler), kept in zip(self._driven, state.own["schedules"], strict=True):
            scheduler.load_state_dict(kept)
            # A schedule only knows its rates; those in force are the optimiser's.
            for group, rate in zip(optimiser.param_groups, scheduler.get_last_lr(), strict=True):
                group["lr"] = rate

    def _state_of(self, number: int) -> State:
        if number in self._steerings:
            return self._steerings[number].state()
        assert self._still is not None
        # Nothing there: the trial diverged before its first step.
        return State(tensors=dict(self._still.state.get(self._slots[number].values, {})))

    def _restore(self, number: int, state: State) -> None:
        if number in self._steerings:
            self._steerings[number].restore(state)
        elif state.tensors:
            assert self._still is not None
            values = self._slots[number].values
            self._still.state[values] = state.on(values.device).tensors
