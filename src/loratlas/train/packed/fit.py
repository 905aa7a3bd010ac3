"""How are many trials trained together, each as if it were alone?

One optimiser step after another for all trials. Each trial has its own rows, loss, clipping,
moments and rate; what they share is the frozen base, which every pass computes once for all rows.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from transformers import get_scheduler

from loratlas.data.masked import Masking
from loratlas.data.rows import TokenizedRow
from loratlas.train.outcome import Fit, Trajectory
from loratlas.train.packed.flow import Flow, Unit
from loratlas.train.packed.loss import backward
from loratlas.train.packed.passes import Passes, is_out_of_memory
from loratlas.train.packed.slots import Slot
from loratlas.train.packed.steering import Steering
from loratlas.train.packed.windows import windows
from loratlas.train.policy import Policy
from loratlas.train.reference import DivergedError, diverged, num_steps, warmup_steps
from loratlas.train.trial import TrainingSpec

log = logging.getLogger(__name__)

ENGINE = "packed"


def fit_pack(
    flow: Flow,
    rows: Sequence[TokenizedRow],
    training: TrainingSpec,
    *,
    learning_rates: Sequence[float],
    passes: Passes,
    masking: Masking | None = None,
    policies: Mapping[int, Policy] | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> list[Fit | DivergedError]:
    """Train the adapters of a pack in place; the flow is open.

    Args:
        flow: the base with the slots of the trials.
        rows: the training rows, the same for all.
        training: everything but the rates.
        learning_rates: the peak rate of each slot.
        passes: how many rows go through the base at once.
        masking: how rows are masked at each visit, for a masked language model.
        policies: what moves the placements of some slots, which are elastic, by their number.
        on_step: called after each optimiser step with (steps done, steps in all).

    Returns:
        how each trial went, in the order of the slots.
    """
    total = num_steps(training, len(rows))
    drive = _Drive(flow.slots, training, total, learning_rates, policies or {})
    reading = [windows(rows, training, seed=slot.seed, masking=masking) for slot in flow.slots]
    courses = [_Course() for _ in flow.slots]
    for step in range(total):
        began = time.perf_counter()
        units = [
            Unit(number, next(reading[number]))
            for number, course in enumerate(courses)
            if course.diverged is None
        ]
        losses = _losses(flow, flow.in_order(units), passes, step, keep=masking is None)
        for number, loss in losses.items():
            courses[number].add(loss, step + 1, total)
            going = courses[number].diverged is None
            if going:
                drive.after_backward(number, step + 1)
            _clip(flow.slots[number], training.clip, stopped=not going)
        drive.step([n for n in losses if courses[n].diverged is None], step + 1)
        seconds = time.perf_counter() - began
        for number in losses:
            courses[number].seconds.append(seconds)
        if on_step is not None:
            on_step(step + 1, total)
    return [
        course.diverged or course.fit(drive.trajectory(number, total))
        for number, course in enumerate(courses)
    ]


class _Drive:
    """The optimisers of a pack, and what moves placements after their steps."""

    def __init__(
        self,
        slots: Sequence[Slot],
        training: TrainingSpec,
        total: int,
        learning_rates: Sequence[float],
        policies: Mapping[int, Policy],
    ) -> None:
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
        if still:
            decay = training.weight_decay
            optimisers.append(torch.optim.AdamW(still, weight_decay=decay, fused=True))
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

    def trajectory(self, number: int, total: int) -> Trajectory | None:
        """Return how the placement of a trial moved, None where it stood still."""
        return self._steerings[number].ended(total) if number in self._steerings else None


class _Course:
    """How one trial goes."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.seconds: list[float] = []
        self.diverged: DivergedError | None = None

    def add(self, loss: float, step: int, total: int) -> None:
        """Take the loss of a step; one that is no number ends the trial."""
        if math.isfinite(loss):
            self.losses.append(loss)
        else:
            self.diverged = diverged(loss, step, total)

    def fit(self, trajectory: Trajectory | None) -> Fit:
        """Return what is told of a trial that reached its end."""
        return Fit(
            losses=tuple(self.losses),
            step_seconds=tuple(self.seconds),
            trajectory=trajectory,
        )


def _losses(
    flow: Flow, units: Sequence[Unit], passes: Passes, step: int, *, keep: bool
) -> dict[int, float]:
    """Take the gradients of one step; return the loss of each trial.

    Out of memory, the step begins again with smaller passes: nothing but gradients has changed.
    """
    num_scored = {unit.slot: sum(row.num_scored for row in unit.rows) for unit in units}
    while True:
        flow.begin_step(step)
        sums = dict.fromkeys(num_scored, 0.0)
        try:
            found = [
                backward(flow, flow.passed(part, keep=keep), num_scored)
                for part in passes.cut(units)
            ]
        except Exception as error:
            if not (is_out_of_memory(error) and passes.halve(units)):
                raise
            log.warning("out of memory; passes of at most %d tokens from now on", passes.limit)
            continue
        for nll in found:
            for number, value in nll.items():
                sums[number] += float(value)
        return {number: value / num_scored[number] for number, value in sums.items()}


def _clip(slot: Slot, largest: float | None, *, stopped: bool) -> None:
    if stopped:
        slot.values.grad = None  # the optimiser leaves it alone from now on
    elif largest is not None:
        torch.nn.utils.clip_grad_norm_([slot.values], largest)
