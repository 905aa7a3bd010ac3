"""What is transformers' Trainer told, and what of it is ours?"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler
from transformers import PrinterCallback, Trainer, TrainingArguments

from loratlas.data.masked import Masking
from loratlas.data.rows import TokenizedRow
from loratlas.train.randomness import masks, row_order
from loratlas.train.reference_resume import (
    TRAINER_STATE,
    Course,
    put_back,
    read_tensors,
    require_whole,
    write_own,
)
from loratlas.train.trial import TrainingSpec


class ReferenceTrainer(Trainer):
    """Trainer, except that rows come in the study's order and checkpoints are whole."""

    def __init__(self, *, order: Sampler[int], **arguments: Any) -> None:
        super().__init__(**arguments)
        self.remove_callback(PrinterCallback)
        self._order = order

    def write_state(self, course: Course, folder: Path) -> None:
        """Write all that decides the steps to come into a folder.

        Raises:
            VerificationError: Trainer left something out.
        """
        write_own(self.model, course, folder)
        self._save_optimizer_and_scheduler(str(folder))
        self._save_rng_state(str(folder))
        self.state.save_to_json(str(folder / TRAINER_STATE))
        require_whole(folder)

    def _load_from_checkpoint(
        self,
        resume_from_checkpoint: str,
        model: torch.nn.Module | None = None,  # noqa: ARG002
    ) -> None:
        put_back(self.model, read_tensors(Path(resume_from_checkpoint)))

    def _get_train_sampler(self, *_: Any) -> Sampler[int]:
        return self._order


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


class Visits(Dataset[TokenizedRow]):
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


def training_arguments(
    training: TrainingSpec,
    *,
    folder: str,
    num_steps: int,
    warmup_steps: int,
    learning_rate: float,
    seed: int,
    device: torch.device,
) -> TrainingArguments:
    """Return what Trainer is told of one trial; it writes nothing by itself."""
    arguments = TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=training.batch,
        gradient_accumulation_steps=training.accumulation,
        max_steps=num_steps,
        learning_rate=learning_rate,
        lr_scheduler_type=training.scheduler,
        warmup_steps=warmup_steps,
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
