"""Which keys may a person write in the sections of a study file: model, data, training, measures?

One pydantic model a section. They are strict (no text is taken for a number) and refuse unknown
keys. The docstring under a field is also what an editor shows, through the schema.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from loratlas.data.spec import MASK_SHARE, DataFormat, LossOn
from loratlas.measure.measures import ForgettingMeasure, TaskMeasure
from loratlas.placement.placement import LoraSpec, Scaling
from loratlas.study import values
from loratlas.train.trial import Dtype, Scheduler, TrainingSpec

_TRAINING, _LORA = TrainingSpec(), LoraSpec()
_TASK, _FORGETTING = TaskMeasure(task=""), ForgettingMeasure()


class Fields(BaseModel):
    """What all sections share: no unknown key, no silent change of type, no inf and no NaN."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class ModelFields(Fields):
    """The base model, with its revision."""

    name: values.ModelName
    """Hub name, folder, or demo:gpt2."""
    revision: values.Text | None = None
    """Branch, tag or commit of a model on the hub."""
    trust_remote_code: bool = False
    """Whether code that comes with the model may run."""


class FileFields(Fields):
    """Local files by split."""

    train: values.Text
    """File with the rows for training."""
    validation: values.Text | None = None
    """File with the rows that choose the learning rate."""
    test: values.Text | None = None
    """File with the rows that the answer is read from."""


class DataFields(Fields):
    """Which rows the study trains on and is judged by."""

    source: Annotated[
        Annotated[values.Text, Tag(values.ONE)] | Annotated[FileFields, Tag(values.KEYS)],
        Discriminator(values.keys_or_one),
    ]
    """Hub name, one local file, a bundled task such as demo:facts, or files by split."""
    config: values.Text | None = None
    """Configuration of a data set on the hub."""
    revision: values.Text | None = None
    """Branch, tag or commit of a data set on the hub."""
    format: DataFormat
    """How a row is read."""
    train: values.Rows | None = None
    """Rows for training; without it, what the other splits leave."""
    validation: values.RowsOrNone | None = None
    """Rows that choose the learning rate; without it, the source's own split; 0 is none."""
    test: values.Rows | None = None
    """Rows that the answer is read from; without it, the source's own split."""
    loss_on: LossOn = "response"
    """Which tokens are trained on and scored."""
    mask_share: values.Share = MASK_SHARE
    """Share of those tokens that is masked, for masked language models such as BERT."""
    max_length: values.Tokens = 512
    """Tokens of a row, special tokens included; what is longer is truncated and counted."""
    split_seed: values.Seed = 0
    """Seed of the draw of splits; it has nothing to do with the seeds of trials."""

    @model_validator(mode="after")
    def _files_stand_alone(self) -> "DataFields":
        if isinstance(self.source, FileFields) and (self.config or self.revision):
            text = "config and revision are for a data set on the hub; files have neither"
            raise PydanticCustomError("stated", text)
        return self


class LoraFields(Fields):
    """The adapters of every placement that says nothing else."""

    rank: values.Rank = _LORA.rank
    """Rank of an adapter."""
    alpha: values.Positive = _LORA.alpha
    """Numerator of the scale."""
    scaling: Scaling = _LORA.scaling
    """The scale of sites whose rank differs from `rank`: constant keeps alpha/rank of the study."""
    dropout: values.Dropout = _LORA.dropout
    """Dropout on the adapters' input."""


class TrainingFields(Fields):
    """How every trial is trained; only the learning rate is swept."""

    epochs: values.Positive = _TRAINING.epochs
    """Passes over the training rows."""
    steps: values.Count | None = _TRAINING.steps
    """Optimiser steps; when given, training ends there whatever `epochs` says."""
    batch: values.Count = _TRAINING.batch
    """Rows of one micro-batch."""
    accumulation: values.Count = _TRAINING.accumulation
    """Micro-batches of one optimiser step."""
    learning_rate: values.Rates = Field(default=list(_TRAINING.learning_rate))
    """Peak learning rate, or a list; each placement is trained at every one of them."""
    scheduler: Scheduler = _TRAINING.scheduler
    """Shape of the learning rate after the warm-up."""
    warmup: values.FromZero = _TRAINING.warmup
    """Warm-up: below 1 a share of all optimiser steps, from 1 on a number of steps."""
    weight_decay: values.FromZero = _TRAINING.weight_decay
    """AdamW's decoupled weight decay."""
    clip: values.Positive | None = _TRAINING.clip
    """Largest norm of a trial's gradient; null does not clip."""
    base_dropout: values.Dropout | None = _TRAINING.base_dropout
    """Dropout of the frozen base; null keeps what its configuration says."""
    dtype: Dtype = _TRAINING.dtype
    """Type of the frozen base; adapters and optimiser are always fp32."""

    @model_validator(mode="after")
    def _warmup_fits_the_steps(self) -> "TrainingFields":
        if self.warmup >= 1 and not self.warmup.is_integer():
            text = "warmup is {given}; allowed: a share below 1, or a whole number of steps"
            raise PydanticCustomError("stated", text, {"given": self.warmup})
        if self.steps is not None and self.warmup > self.steps:
            text = "warmup has {given} steps, more than the {steps} steps of the training"
            context = {"given": int(self.warmup), "steps": self.steps}
            raise PydanticCustomError("stated", text, context)
        return self


class TaskFields(Fields):
    """A task of lm-evaluation-harness (extra `eval`), with its own prompt, filters and metrics."""

    task: values.HarnessTask
    """lm_eval: and the name that lm_eval knows the task by, such as lm_eval:gsm8k."""
    source: values.Text | None = _TASK.source
    """Local file with the questions; without it, the data set that the task names."""
    rows: values.Rows | None = _TASK.rows
    """Questions that are asked, the first ones; without it, all of them."""
    shots: values.Shots = _TASK.shots
    """Solved examples before each question; the task's own number is not used."""
    max_new_tokens: values.Count = _TASK.max_new_tokens
    """Most tokens of a generated answer; the task's own bound is not used."""
    batch: values.Count = _TASK.batch
    """Prompts of one forward pass; it is not part of what the study is."""


class ForgettingFields(Fields):
    """The loss on general text before training and after."""

    task: Literal["forgetting"]
    """forgetting."""
    source: values.Text = _FORGETTING.source
    """Hub name, one local file, or demo:text, which the bundled models have by default."""
    format: DataFormat = _FORGETTING.format
    """How a row is read; every token of it is scored."""
    rows: values.Rows = _FORGETTING.rows
    """Rows that are drawn from the source's own test split, or from all it has."""
    max_length: values.Tokens = _FORGETTING.max_length
    """Tokens of a row; what is longer is cut."""


Measured = Annotated[
    Annotated[values.MeasureName, Tag(values.ONE)]
    | Annotated[TaskFields, Tag(values.KEYS)]
    | Annotated[ForgettingFields, Tag(values.TEXT)],
    Discriminator(values.measure_form),
]
"""One entry of `measures`."""
