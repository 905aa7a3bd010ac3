"""Which keys may a person write in a study file?

One pydantic model a section. They are strict (no text is taken for a number), refuse unknown
keys, and stay inside this folder: `spec.py` turns them into frozen dataclasses. The docstring
under a field is also what an editor shows, through `schema`.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)
from pydantic_core import PydanticCustomError

from loratlas.data.spec import MASK_SHARE, DataFormat, LossOn
from loratlas.measure.measures import ForgettingMeasure, TaskMeasure
from loratlas.placement.placement import LoraSpec, Scaling
from loratlas.study import values
from loratlas.train.trial import Dtype, Scheduler, TrainingSpec

VERSION = 1
"""Number of the format of study files that this version reads."""

NUM_SEEDS = 6
"""Seeds of a study that says nothing: the fewest with which a sign-flip test can reach 0.05."""

_LEFT_OUT: Any = None
"""Default of a key that has no value of its own; a null in the file is refused there."""
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


class RuleFields(Fields):
    """A placement written as one rule."""

    rule: values.Rule
    """A rule, such as: attention, all @ layers(50%..), attention:16 + feed_forward:4."""
    rank: values.Rank = _LEFT_OUT
    """Rank of this placement; without it, the rank under `lora`."""
    match: values.Match = _LEFT_OUT
    """Overrides the study's `match` for this placement."""

    def to_rule(self) -> str | list[dict[str, Any]]:
        """Return the rule as `loratlas.placement.rules.parse` takes it."""
        return self.rule if self.rank is None else [{"rule": self.rule, "rank": self.rank}]

    @model_validator(mode="after")
    def _can_be_read(self) -> "RuleFields":
        values.check_rule(self.to_rule())
        return self


class PartFields(Fields):
    """One part of a placement, with its own rank."""

    rule: values.Rule
    """Which sites belong to this part."""
    rank: values.Rank = _LEFT_OUT
    """Rank of this part; without it, the rank under `lora`."""


class PartsFields(Fields):
    """A placement written as a list of parts that do not overlap."""

    parts: list[PartFields] = Field(min_length=1)
    """The parts; sites in no part are not adapted."""
    match: values.Match = _LEFT_OUT
    """Overrides the study's `match` for this placement."""

    def to_rule(self) -> list[dict[str, Any]]:
        """Return the parts as `loratlas.placement.rules.parse` takes them."""
        return [part.model_dump(exclude_unset=True) for part in self.parts]

    @model_validator(mode="after")
    def _can_be_read(self) -> "PartsFields":
        values.check_rule(self.to_rule())
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


class StudyFields(Fields):
    """A study: trials that differ only where they are meant to."""

    version: Literal[1] = 1
    """Format of this file."""
    name: values.StudyName
    """Name of the study."""
    model: Annotated[
        Annotated[values.ModelName, Tag(values.ONE)] | Annotated[ModelFields, Tag(values.KEYS)],
        Discriminator(values.keys_or_one),
    ]
    """The base model: hub name, folder, demo:gpt2, or {name: ..., revision: ...}."""
    trust_remote_code: bool = False
    """Whether code that comes with the model may run."""
    device: values.Device = "auto"
    """Where trials run; it is not part of what the study is."""
    data: DataFields
    """Which rows the study trains on and is judged by."""
    placements: dict[
        str,
        Annotated[
            Annotated[values.Rule, Tag(values.ONE)]
            | Annotated[RuleFields, Tag(values.KEYS)]
            | Annotated[PartsFields, Tag(values.PARTS)],
            Discriminator(values.rule_or_parts),
        ],
    ] = Field(min_length=1)
    """The placements that are compared, by a name of your choice."""
    baseline: values.Baseline = _LEFT_OUT
    """The placement that the others are compared with; without it, the first one."""
    lora: LoraFields = LoraFields()
    """The adapters of every placement that says nothing else."""
    match: values.Match = "parameters"
    """parameters: ranks are chosen so that all placements have the baseline's count; or none."""
    training: TrainingFields = TrainingFields()
    """How every trial is trained."""
    seeds: values.Seeds = NUM_SEEDS
    """Number of seeds (6 stands for 0 to 5), or the seeds themselves."""
    sweep_seeds: values.Count = _LEFT_OUT
    """Seeds that run at every learning rate; the others run at the chosen one only."""
    measures: Annotated[list[Measured], AfterValidator(values.distinct_measures)] = Field(
        default=["loss"], min_length=1, max_length=100
    )
    """What is measured: loss on the test rows (always), forgetting, lm_eval:TASK, or a mapping."""
    margin: values.Margin = 0.05
    """Difference below which two placements count as equivalent, as a share: 5% or 0.05."""
    track: values.Trackers = Field(default=[])
    """Trackers that every trial is mirrored to; they are not part of what the study is."""


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a study file, for editors."""
    described: dict[str, Any] = _without_null_defaults(StudyFields.model_json_schema())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **described}


def _without_null_defaults(node: Any) -> Any:
    if isinstance(node, list):
        return [_without_null_defaults(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: _without_null_defaults(value)
        for key, value in node.items()
        if not (key == "default" and value is None)
    }
