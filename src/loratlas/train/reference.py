"""The reference engine: one trial with PEFT and transformers' Trainer.

It is what a person would have written for one fine-tune, and what every other engine is
held against.
"""

import logging
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from loratlas.data.masked import Masking
from loratlas.data.rows import IGNORED, TokenizedRow
from loratlas.errors import TrialError
from loratlas.train.base import Base, quiet
from loratlas.train.checkpoint import Keeper
from loratlas.train.memory import give_back, is_out_of_memory, micro_batches
from loratlas.train.outcome import Fit
from loratlas.train.randomness import dropout_seed
from loratlas.train.reference_resume import (
    Course,
    Kept,
    newest,
    put_back,
    read_tensors,
    trained_tensors,
)
from loratlas.train.reference_trainer import (
    ReferenceTrainer,
    RowOrder,
    Visits,
    training_arguments,
)
from loratlas.train.trial import TrainingSpec

log = logging.getLogger(__name__)

ENGINE = "reference"


class DivergedError(TrialError):
    """The training loss stopped being a number."""


def diverged(loss: float, step: int, total: int) -> DivergedError:
    """Return what ends a trial whose training loss is no number."""
    return DivergedError(f"diverged: the training loss is {loss} at step {step} of {total}")


def num_steps(training: TrainingSpec, num_rows: int) -> int:
    """Return the optimiser steps of one trial, counted as Trainer counts them."""
    if training.steps is not None:
        return training.steps
    return math.ceil(training.epochs * steps_per_epoch(training, num_rows))


def steps_per_epoch(training: TrainingSpec, num_rows: int) -> int:
    """Return the optimiser steps of one pass; the last window may be short."""
    num_micro_batches = math.ceil(num_rows / training.batch)
    return math.ceil(num_micro_batches / training.accumulation)


def warmup_steps(training: TrainingSpec, total: int) -> int:
    """Return the optimiser steps over which the rate rises."""
    share = training.warmup
    return math.ceil(share * total) if share < 1 else int(share)


def fit(
    base: Base,
    peft_model: Any,
    rows: Sequence[TokenizedRow],
    training: TrainingSpec,
    *,
    learning_rate: float,
    seed: int,
    masking: Masking | None = None,
    on_step: Callable[[int, int], None] | None = None,
    keeper: Keeper | None = None,
) -> Fit:
    """Train the adapters of a model in place.

    The loss of an optimiser step is Σ nll / Σ scored predictions over its whole window, in
    every task. A causal model computes it itself, as in anybody's use of Trainer; the other
    classes of transformers average each micro-batch, so theirs is computed here.

    Out of memory, the trial begins again with smaller micro-batches and the same windows, as if
    it had been asked for with them: what comes out does not depend on the step that failed.

    Args:
        base: the base that carries the adapters.
        peft_model: the base wrapped in adapters; only they have gradients.
        rows: the training rows.
        training: everything but the rate.
        learning_rate: the peak rate.
        seed: of row order, masks and dropout.
        masking: how rows are masked at each visit, for a masked language model.
        on_step: called with (steps done, steps in all): after each optimiser step, once where an
            earlier training goes on, and with 0 where one begins again.
        keeper: keeps the state on the way, and holds the state to go on from.

    Raises:
        DivergedError: the training loss is not finite.
        StopRequested: the keeper was told to stop.
    """
    trial = _Trial(
        base=base,
        model=peft_model,
        rows=rows,
        num_steps=num_steps(training, len(rows)),
        learning_rate=learning_rate,
        seed=seed,
        masking=masking,
        tell=on_step or (lambda *_: None),
        keeper=keeper,
    )
    beginning = trained_tensors(peft_model)
    kept = newest(keeper)
    sizes = micro_batches(training, len(rows))
    if kept is not None:
        sizes = [each for each in sizes if each.batch <= kept.course.micro_batch]
    while True:
        try:
            course = trial.train(sizes[0], kept)
        except Exception as error:
            if not (is_out_of_memory(error) and len(sizes) > 1):
                raise
        else:
            return _fit(course, training)
        # Here, behind the handler, nothing holds the frames of the failed step and their tensors.
        sizes, kept = sizes[1:], None
        trial.begin_again(sizes[0], beginning)


def _fit(course: Course, asked: TrainingSpec) -> Fit:
    return Fit(
        losses=tuple(course.losses),
        step_seconds=tuple(course.seconds),
        micro_batch=None if course.micro_batch == asked.batch else course.micro_batch,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Trial:
    """What stays the same however large the micro-batches are; names as in `fit`."""

    base: Base
    model: Any
    rows: Sequence[TokenizedRow]
    num_steps: int
    learning_rate: float
    seed: int
    masking: Masking | None
    tell: Callable[[int, int], None]
    keeper: Keeper | None

    def train(self, training: TrainingSpec, kept: Kept | None) -> Course:
        """Train to the end, from a checkpoint or from the beginning."""
        course = Course(micro_batch=training.batch) if kept is None else kept.course
        if kept is not None:
            self.tell(kept.step, self.num_steps)
            if kept.step == self.num_steps:  # Trainer would add a step where the epoch has one left
                put_back(self.model, read_tensors(kept.folder))
                return course
        with tempfile.TemporaryDirectory(prefix="loratlas-") as folder, quiet():
            trainer = self._trainer(training, course, folder)
            torch.manual_seed(dropout_seed(self.seed) % 2**63)
            trainer.train(resume_from_checkpoint=None if kept is None else str(kept.folder))
        return course

    def begin_again(self, training: TrainingSpec, beginning: dict[str, torch.Tensor]) -> None:
        """Undo all that was done with larger micro-batches."""
        give_back(self.base.device)
        put_back(self.model, beginning)
        if self.keeper is not None:
            self.keeper.checkpoints.clear()
        log.warning(
            "out of memory; the trial begins again with micro-batches of %d rows, %d in a step",
            training.batch,
            training.accumulation,
        )
        self.tell(0, self.num_steps)

    def _trainer(self, training: TrainingSpec, course: Course, folder: str) -> ReferenceTrainer:
        trainer = ReferenceTrainer(
            model=self.model,
            args=training_arguments(
                training,
                folder=folder,
                num_steps=self.num_steps,
                warmup_steps=warmup_steps(training, self.num_steps),
                learning_rate=self.learning_rate,
                seed=self.seed,
                device=self.base.device,
            ),
            train_dataset=Visits(self.rows, self.masking, self.seed),
            data_collator=self.base.collator,
            compute_loss_func=None if self.base.task == "causal" else window_loss,
            callbacks=[_Watch(course, self.num_steps, self.tell)],
            order=RowOrder(self.seed, len(self.rows)),
        )
        if self.keeper is not None:
            trainer.add_callback(_Keeping(self.keeper, trainer, course, self.num_steps))
        return trainer


def window_loss(
    outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Return Σ nll of a micro-batch / scored predictions of its window; nothing is shifted.

    Args:
        outputs: a model's outputs, with logits of shape (..., classes).
        labels: shape (...), -100 where not scored.
        num_items_in_batch: scored predictions of the window; None takes the micro-batch's.
    """
    logits = outputs.logits.float()
    total = torch.nn.functional.cross_entropy(
        logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    return total / ((labels != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch)


class _Watch(TrainerCallback):
    """Keeps the loss and the time of every step; ends a run whose loss is no number."""

    def __init__(self, course: Course, total: int, tell: Callable[[int, int], None]) -> None:
        self._course = course
        self._total = total
        self._tell = tell
        self._began = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._began = time.perf_counter()

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **_: Any,
    ) -> None:
        if args.device.type != "cpu":
            torch.accelerator.synchronize()
        self._course.seconds.append(time.perf_counter() - self._began)
        self._tell(state.global_step, self._total)

    def on_log(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **told: Any,
    ) -> None:
        loss = told.get("logs", {}).get("loss")
        if loss is None:
            return
        if not math.isfinite(loss):
            raise diverged(loss, state.global_step, self._total)
        self._course.losses.append(float(loss))


class _Keeping(TrainerCallback):
    """Lets the keeper write after a step whose loss is known: it stands behind the watch."""

    def __init__(
        self, keeper: Keeper, trainer: ReferenceTrainer, course: Course, total: int
    ) -> None:
        self._keeper = keeper
        self._write = partial(trainer.write_state, course)
        self._total = total

    def on_log(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **told: Any,
    ) -> None:
        if "loss" in told.get("logs", {}):
            self._keeper.after_step(state.global_step, self._total, self._write)
