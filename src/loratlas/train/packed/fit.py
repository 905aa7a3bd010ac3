"""How are many trials trained together, each as if it were alone?

One optimiser step after another for all trials. Each trial has its own rows, loss, clipping,
moments and rate; what they share is the frozen base, which every pass computes once for all rows.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence

import torch

from loratlas.data.masked import Masking
from loratlas.data.rows import TokenizedRow
from loratlas.train.checkpoint import Keeper
from loratlas.train.memory import is_out_of_memory
from loratlas.train.outcome import Fit
from loratlas.train.packed.course import Course
from loratlas.train.packed.drive import Drive
from loratlas.train.packed.flow import Flow, Unit
from loratlas.train.packed.loss import backward
from loratlas.train.packed.passes import Passes
from loratlas.train.packed.standing import Standing
from loratlas.train.packed.windows import windows
from loratlas.train.policy import Policy
from loratlas.train.reference import DivergedError, num_steps
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
    keeper: Keeper | None = None,
) -> list[Fit | DivergedError]:
    """Train the adapters of a pack in place; the flow is open.

    Args:
        flow: the base with the slots of the trials, as they begin.
        rows: the training rows, the same for all.
        training: everything but the rates.
        learning_rates: the peak rate of each slot.
        passes: how many rows go through the base at once.
        masking: how rows are masked at each visit, for a masked language model.
        policies: what moves the placements of some slots, which are elastic, by their number.
        on_step: called with (steps done, steps in all) after each optimiser step, and once where
            an earlier training goes on.
        keeper: keeps the state on the way, and holds the state to go on from.

    Returns:
        how each trial went, in the order of the slots.

    Raises:
        StopRequested: the keeper was told to stop.
        VerificationError: what the keeper holds is not of this pack, or a policy went above its
            budget.
    """
    total = num_steps(training, len(rows))
    courses = [Course() for _ in flow.slots]
    drive = Drive(flow.slots, training, total, learning_rates, policies or {})
    standing = Standing(slots=flow.slots, courses=courses, drive=drive, passes=passes)
    first = standing.resumed(keeper)
    if first and on_step is not None:
        on_step(first, total)
    reading = [
        windows(rows, training, seed=slot.seed, masking=masking, first=first) for slot in flow.slots
    ]
    for step in range(first, total):
        began = time.perf_counter()
        units = [
            Unit(number, next(reading[number]))
            for number, course in enumerate(courses)
            if course.diverged is None
        ]
        losses = _losses(flow, flow.in_order(units), passes, step, keep=masking is None)
        _move(standing, losses, step + 1, total, training.clip)
        seconds = time.perf_counter() - began
        for number in losses:
            courses[number].seconds.append(seconds)
        if on_step is not None:
            on_step(step + 1, total)
        if keeper is not None:
            keeper.after_step(step + 1, total, standing.write)
    return [
        course.diverged or course.fit(drive.trajectory(number))
        for number, course in enumerate(courses)
    ]


def _move(
    pack: Standing, losses: Mapping[int, float], step: int, total: int, largest: float | None
) -> None:
    """Take the optimiser step that gradients ask for; a trial whose loss is no number stops."""
    for number, loss in losses.items():
        course, slot = pack.courses[number], pack.slots[number]
        course.add(loss, step, total)
        if course.diverged is not None:
            slot.stop()
            continue
        pack.drive.after_backward(number, step)
        if largest is not None:
            torch.nn.utils.clip_grad_norm_([slot.values], largest)
    pack.drive.step([n for n in losses if pack.courses[n].diverged is None], step)


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
