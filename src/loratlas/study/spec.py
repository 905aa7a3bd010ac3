"""What does a person want to find out? The study file, read, checked and frozen."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from loratlas.anatomy.sites import digest_of
from loratlas.data.spec import DataSpec
from loratlas.dynamic.spec import PolicySpec
from loratlas.measure.measures import (
    FORGETTING,
    LOSS,
    ForgettingMeasure,
    Measure,
    TaskMeasure,
)
from loratlas.placement.placement import LoraSpec
from loratlas.placement.rules import parse
from loratlas.study import checks, fields, sections
from loratlas.study.document import Document, parse_document, read_document
from loratlas.study.hypothesis import parse_hypothesis
from loratlas.study.learned import HybridSpec
from loratlas.study.learned_fields import HybridFields, PolicyFields
from loratlas.study.messages import problems_of
from loratlas.study.problems import raise_problems
from loratlas.study.tracking.trackers import Tracker
from loratlas.study.values import Device, Engine, Match
from loratlas.train.trial import ModelRef, TrainingSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacementSpec:
    """One placement of a study, before it meets a model."""

    name: str
    """The key of the study file; any printable text."""
    rule: str | list[dict[str, Any]]
    """What `loratlas.placement.rules.parse` reads: a sentence, or parts with their ranks."""
    match: Match | None = None
    """Overrides the study's `match`; None follows it."""
    hybrid: HybridSpec | None = None
    """How scores choose its ranks; `rule` is then for the sites to choose from."""
    policy: PolicySpec | None = None
    """What moves it while it is trained; `rule` is then for the sites that it may use."""
    budget: int | None = None
    """Most adapter parameters of a placement that is learned; None takes the baseline's count."""
    line: int = 0
    """Where the placement stands in the study file."""

    def to_json(self, match: Match) -> dict[str, Any]:
        """Return what the placement is, as plain data.

        Args:
            match: of the study.
        """
        if self.hybrid is None and self.policy is None:
            return {"rule": str(parse(self.rule)), "match": self.match or match}
        return {
            "rule": str(parse(self.rule)),
            "budget": self.budget,
            "hybrid": None if self.hybrid is None else self.hybrid.to_json(),
            "policy": None if self.policy is None else self.policy.to_json(),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class StudySpec:
    """A study: trials that differ only where they are meant to.

    The baseline is a name of `placements`; in a file that names none it is the first placement.
    """

    name: str
    model: ModelRef
    data: DataSpec
    placements: Mapping[str, PlacementSpec]
    """By name, in the order of the file."""
    baseline: str
    lora: LoraSpec
    match: Match
    training: TrainingSpec
    seeds: tuple[int, ...]
    sweep_seeds: int | None
    """How many of the first seeds run at every learning rate; None takes all of them."""
    measures: tuple[Measure, ...]
    """What is measured beside the loss on the test rows."""
    margin: float
    """As a share: 0.05 for 5%."""
    hypothesis: dict[str, str]
    """Claims made before the run, in canonical form, by the placement that they are about."""
    device: Device
    engine: Engine = "auto"
    """Whether trials train together; it is not part of what the study is."""
    track: tuple[Tracker, ...] = ()
    """Where trials are mirrored to."""
    path: Path
    """The study file, as it was named."""
    root: Path
    """The folder of the study file; relative paths in it start here."""

    def to_json(self) -> dict[str, Any]:
        """Return everything that can change a result, as plain data.

        Left out are the study's name, device and engine, the trackers, where the file lies, and how
        it is laid out; a rule stands in its canonical form.
        """
        return {
            "model": asdict(self.model),
            "data": asdict(self.data),
            "placements": {
                name: placement.to_json(self.match) for name, placement in self.placements.items()
            },
            "baseline": self.baseline,
            "lora": asdict(self.lora),
            "training": asdict(self.training),
            "seeds": list(self.seeds),
            "sweep_seeds": self.sweep_seeds or len(self.seeds),
            "measures": [LOSS, *(measure.to_json() for measure in self.measures)],
            "margin": self.margin,
            "hypothesis": dict(self.hypothesis),
        }

    @property
    def digest(self) -> str:
        """SHA-256 of `to_json`: two files with this digest ask the same question."""
        return digest_of(self.to_json())


def load_study(path: Path) -> StudySpec:
    """Read a study file.

    Raises:
        StudyError: the file is wrong; every fault has a line that names file, line and key.
        NotYetError: the file asks only for what a later version will serve.
    """
    return _study(read_document(Path(path)))


def parse_study(text: str, path: Path) -> StudySpec:
    """Read the text of a study file; `path` is named in messages and gives the root.

    Raises:
        StudyError: the text is wrong; every fault has a line that names file, line and key.
        NotYetError: the text asks only for what a later version will serve.
    """
    return _study(parse_document(text, path))


def _study(document: Document) -> StudySpec:
    checks.check_version(document)
    data, problems = checks.set_aside(document)
    problems += [*document.problems, *checks.relations(document)]
    try:
        read = fields.StudyFields.model_validate(data)
    except ValidationError as error:
        said = {(problem.line, problem.key) for problem in problems}
        found = problems_of(error, document)
        problems += [item for item in found if (item.line, item.key) not in said]
        raise_problems(document.path, problems)
    if problems:
        raise_problems(document.path, problems)
    return _frozen(read, document)


def _frozen(read: fields.StudyFields, document: Document) -> StudySpec:
    placements = {
        name: _placement(name, form, document.line(("placements", name)))
        for name, form in read.placements.items()
    }
    rates = read.training.learning_rate
    training = read.training.model_dump(exclude={"learning_rate"})
    return StudySpec(
        name=read.name,
        model=_model(read, document.path.absolute().parent),
        data=_data(read.data),
        placements=placements,
        baseline=read.baseline or next(iter(placements)),
        lora=LoraSpec(**read.lora.model_dump()),
        match=read.match,
        training=TrainingSpec(
            **training, learning_rate=tuple(rates) if isinstance(rates, list) else (rates,)
        ),
        seeds=tuple(read.seeds if isinstance(read.seeds, list) else range(read.seeds)),
        sweep_seeds=read.sweep_seeds,
        measures=tuple(map(_measure, (each for each in read.measures if each != LOSS))),
        margin=read.margin,
        hypothesis={
            name: str(parse_hypothesis(text, name, list(placements)))
            for name, text in read.hypothesis.items()
        },
        device=read.device,
        engine=read.engine,
        track=tuple(read.track),
        path=document.path,
        root=document.path.absolute().parent,
    )


def _model(read: fields.StudyFields, root: Path) -> ModelRef:
    if isinstance(read.model, str):
        name = _beside(read.model, root)
        return ModelRef(name=name, trust_remote_code=read.trust_remote_code)
    return ModelRef(
        name=_beside(read.model.name, root),
        revision=read.model.revision,
        trust_remote_code=read.model.trust_remote_code or read.trust_remote_code,
    )


def _beside(name: str, root: Path) -> str:
    """Return the path of a model folder that lies beside the study file, else the name itself."""
    try:
        return str(root / name) if (root / name).exists() else name
    except OSError:  # no path at all: too long, say; whoever reads the model will say so
        return name


def _data(read: sections.DataFields) -> DataSpec:
    rest = read.model_dump(exclude={"source"})
    if isinstance(read.source, str):
        return DataSpec(source=read.source, **rest)
    return DataSpec(files=read.source.model_dump(exclude_none=True), **rest)


def _measure(read: str | sections.TaskFields | sections.ForgettingFields) -> Measure:
    if read == FORGETTING:
        return ForgettingMeasure()
    if isinstance(read, str):
        return TaskMeasure(task=read)
    if isinstance(read, sections.ForgettingFields):
        return ForgettingMeasure(**read.model_dump(exclude={"task"}))
    return TaskMeasure(**read.model_dump())


def _placement(
    name: str,
    form: str | fields.RuleFields | fields.PartsFields | HybridFields | PolicyFields,
    line: int,
) -> PlacementSpec:
    if isinstance(form, str):
        return PlacementSpec(name=name, rule=form, line=line)
    if isinstance(form, HybridFields):
        hybrid = form.to_hybrid()
        return PlacementSpec(
            name=name, rule=form.sites, hybrid=hybrid, budget=form.budget, line=line
        )
    if isinstance(form, PolicyFields):
        policy = form.to_policy()
        return PlacementSpec(
            name=name, rule=form.sites, policy=policy, budget=form.budget, line=line
        )
    return PlacementSpec(name=name, rule=form.to_rule(), match=form.match, line=line)
