"""The reference engine: one trial with PEFT and transformers' Trainer.

It is what a person would have written for one fine-tune, and what every other engine is
held against.
"""

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from loratlas.data.masked import Masking
from loratlas.data.rows import IGNORED, TokenizedRow
from loratlas.errors import TrialError
from loratlas.train.base import Base, quiet
from loratlas.train.outcome import Fit
from loratlas.train.randomness import dropout_seed, masks, row_order
from loratlas.train.trial import TrainingSpec

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
    micro_batches = math.ceil(num_rows / training.batch)
    return math.ceil(micro_batches / training.accumulation)


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
) -> Fit:
    """Train the adapters of a model in place.

    The loss of an optimiser step is Σ nll / Σ scored predictions over its whole window, in
    every task. A causal model computes it itself, as in anybody's use of Trainer; the other
    classes of transformers average each micro-batch, so theirs is computed here.

    Args:
        base: the base that carries the adapters.
        peft_model: the base wrapped in adapters; only they have gradients.
        rows: the training rows.
        training: everything but the rate.
        learning_rate: the peak rate.
        seed: of row order, masks and dropout.
        masking: how rows are masked at each visit, for a masked language model.
        on_step: called after each optimiser step with (steps done, steps in all).

    Raises:
        DivergedError: the training loss is not finite.
    """
    total = num_steps(training, len(rows))
    watch = _Watch(total, on_step)
    with tempfile.TemporaryDirectory(prefix="loratlas-") as folder, quiet():
        arguments = _arguments(training, folder, total, learning_rate, seed, base.device)
        trainer = _OrderedTrainer(
            model=peft_model,
            args=arguments,
            train_dataset=_Visits(rows, masking, seed),
            data_collator=base.collator,
            compute_loss_func=None if base.task == "causal" else window_loss,
            callbacks=[watch],
            order=RowOrder(seed, len(rows)),
        )
        trainer.remove_callback(PrinterCallback)
        torch.manual_seed(dropout_seed(seed) % 2**63)
        trainer.train()
    return Fit(losses=tuple(watch.losses), step_seconds=tuple(watch.seconds))


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


class RowOrder(Sampler[int]):
    """The order of visits per (seed, epoch), as `randomness` gives it to every engine.

    A visit's number is the row's index plus the number of rows for each epoch before.
    """

    def __init__(self, seed: int, num_rows: int) -> None:
        self._seed = seed
        self._num_rows = num_rows
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next pass belongs to; Trainer calls this."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        order = row_order(self._seed, self._epoch, self._num_rows)
        return iter((order + self._epoch * self._num_rows).tolist())

    def __len__(self) -> int:
        return self._num_rows


class _Visits(Dataset[TokenizedRow]):
    """The rows by the number of a visit, as `RowOrder` gives it; each visit masks anew."""

    def __init__(self, rows: Sequence[TokenizedRow], masking: Masking | None, seed: int) -> None:
        self._rows = rows
        self._masking = masking
        self._seed = seed

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, visit: int) -> TokenizedRow:
        epoch, index = divmod(visit, len(self._rows))
        row = self._rows[index]
        if self._masking is None:
            return row
        return self._masking.corrupt(row, masks(self._seed, epoch, index))


class _OrderedTrainer(Trainer):
    """Trainer, except that rows come in the study's order."""

    def __init__(self, *, order: RowOrder, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._order = order

    def _get_train_sampler(self, *_: Any) -> RowOrder:
        return self._order


class _Watch(TrainerCallback):
    """Keeps the loss and the time of every step; ends a run whose loss is no number."""

    def __init__(self, total: int, on_step: Callable[[int, int], None] | None) -> None:
        self.losses: list[float] = []
        self.seconds: list[float] = []
        self._total = total
        self._on_step = on_step
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
        self.seconds.append(time.perf_counter() - self._began)
        if self._on_step is not None:
            self._on_step(state.global_step, self._total)

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
        self.losses.append(float(loss))


def _arguments(
    training: TrainingSpec,
    folder: str,
    total: int,
    learning_rate: float,
    seed: int,
    device: torch.device,
) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=training.batch,
        gradient_accumulation_steps=training.accumulation,
        max_steps=total,
        learning_rate=learning_rate,
        lr_scheduler_type=training.scheduler,
        warmup_steps=warmup_steps(training, total),
        weight_decay=training.weight_decay,
        max_grad_norm=training.clip or 0.0,
        optim="adamw_torch",
        seed=seed,
        data_seed=seed,
        use_cpu=device.type == "cpu",
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=device.type == "cuda",
    )
    # One trial is one device's work; without this Trainer spreads a batch over every GPU.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments
