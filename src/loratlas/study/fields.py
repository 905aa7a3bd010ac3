"""Which keys may a person write in a study file?

The study as a whole and its placements; the other sections are in `sections`. The models stay
inside this folder: `spec.py` turns them into frozen dataclasses.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from loratlas.study import values
from loratlas.study.learned_fields import HybridFields, PolicyFields
from loratlas.study.sections import (
    DataFields,
    Fields,
    LoraFields,
    Measured,
    ModelFields,
    TrainingFields,
)

VERSION = 1
"""Number of the format of study files that this version reads."""

NUM_SEEDS = 6
"""Seeds of a study that says nothing: the fewest with which a sign-flip test can reach 0.05."""

_LEFT_OUT: Any = None
"""Default of a key that has no value of its own; a null in the file is refused there."""


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
    engine: values.Engine = "auto"
    """auto trains trials together where that gives the same; reference one by one with PEFT."""
    data: DataFields
    """Which rows the study trains on and is judged by."""
    placements: dict[
        str,
        Annotated[
            Annotated[values.Rule, Tag(values.ONE)]
            | Annotated[RuleFields, Tag(values.KEYS)]
            | Annotated[PartsFields, Tag(values.PARTS)]
            | Annotated[HybridFields, Tag(values.SCORER)]
            | Annotated[PolicyFields, Tag(values.POLICY)],
            Discriminator(values.placement_form),
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
    hypothesis: dict[str, values.Text] = Field(default={})
    """Claims made before the run, by placement: at least 95% of full."""
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
