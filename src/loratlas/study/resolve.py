"""What the placements of a study are on its model: sites, ranks, matched counts, warnings."""

from dataclasses import dataclass

from loratlas.allocate.allocate import allocate
from loratlas.allocate.budget import Budget
from loratlas.allocate.table import ScoreTable, ScoringCost, SiteScore
from loratlas.anatomy.sites import Anatomy, digest_of
from loratlas.dynamic.spec import initial_placement
from loratlas.errors import PlacementError, StudyError
from loratlas.placement.expressions import Rule
from loratlas.placement.lints import Lint, lints
from loratlas.placement.match import match_placement
from loratlas.placement.placement import Placement, place
from loratlas.placement.rules import parse
from loratlas.study.learned import HybridSpec, Learned
from loratlas.study.moving import Moving
from loratlas.study.spec import PlacementSpec, StudySpec


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedPlacement:
    """A placement of a study, resolved on its model.

    Attributes:
        name: its key in the study file.
        rule: its rule.
        placement: site → (rank, alpha).
        matched_to: the parameter count it was brought near to, None when it was not.
        lints: what a person should know before it runs.
        hybrid: how scores choose its ranks; `placement` has equal ranks until they have.
        learned: how they chose them.
        moving: what moves it while it is trained, from `placement` on.
    """

    name: str
    rule: Rule
    placement: Placement
    matched_to: int | None
    lints: tuple[Lint, ...]
    hybrid: HybridSpec | None = None
    learned: Learned | None = None
    moving: Moving | None = None

    @property
    def digest(self) -> str:
        """What trials of it have in common: where adapters are, and what moves them."""
        if self.moving is not None:
            return self.moving.digest
        if self.hybrid is not None and self.learned is None:  # its ranks are not known yet
            return digest_of({"stand-in": self.placement.digest, "hybrid": self.hybrid.to_json()})
        return self.placement.digest

    @property
    def said(self) -> str:
        """Its rule; of one that is learned, what decides, and over which sites."""
        if self.moving is not None:
            return f"{self.moving.spec.name} over {self.rule}"
        if self.hybrid is not None:
            return f"{self.hybrid.scoring.method} over {self.rule}"
        return str(self.rule)

    @property
    def trainable_parameters(self) -> int:
        """Adapter parameters; of one that moves its budget, the most that it may end with."""
        moving = self.moving
        return self.placement.trainable_parameters if moving is None else moving.target


def resolve_study(study: StudySpec, anatomy: Anatomy) -> list[ResolvedPlacement]:
    """Resolve every placement of a study, in the order of its file.

    With ``match: parameters`` the ranks of each placement are scaled so that its count comes
    nearest to that of the baseline at the study's rank.

    Raises:
        StudyError: a rule does not fit the model; names file and line.
    """
    baseline = study.placements[study.baseline]
    target = _at_study_rank(study, anatomy, baseline).trainable_parameters
    return [_resolve(study, anatomy, spec, target) for spec in study.placements.values()]


def _resolve(
    study: StudySpec, anatomy: Anatomy, spec: PlacementSpec, target: int
) -> ResolvedPlacement:
    if spec.hybrid is not None or spec.policy is not None:
        return _learned(study, anatomy, spec, spec.budget or target)
    rule = parse(spec.rule)
    placement = _at_study_rank(study, anatomy, spec)
    matched = (spec.match or study.match) == "parameters" and spec.name != study.baseline
    if matched:
        placement = match_placement(placement, target, study.lora).placement
    return ResolvedPlacement(
        name=spec.name,
        rule=rule,
        placement=placement,
        matched_to=target if matched else None,
        lints=tuple(lints(rule, placement, anatomy, dropout=study.lora.dropout, root=study.root)),
    )


def _learned(
    study: StudySpec, anatomy: Anatomy, spec: PlacementSpec, target: int
) -> ResolvedPlacement:
    """Return a placement that is learned, as far as it is known before anything is computed."""
    rule = parse(spec.rule)
    candidates = _at_study_rank(study, anatomy, spec)
    try:
        if spec.policy is None:
            assert spec.hybrid is not None
            _require_room(candidates, target, spec.hybrid, study)
            placement, moving = match_placement(candidates, target, study.lora).placement, None
        else:
            placement = initial_placement(spec.policy, candidates, target, study.lora)
            moving = Moving(spec=spec.policy, start=placement, target=target)
    except PlacementError as error:
        raise refused(study, spec.name, error) from error
    return ResolvedPlacement(
        name=spec.name,
        rule=rule,
        placement=placement,
        matched_to=target if spec.budget is None else None,
        lints=tuple(lints(rule, placement, anatomy, dropout=study.lora.dropout, root=study.root)),
        hybrid=spec.hybrid,
        moving=moving,
    )


def _require_room(candidates: Placement, target: int, hybrid: HybridSpec, study: StudySpec) -> None:
    """Refuse a budget that no scores could divide among these sites.

    Raises:
        PlacementError: it is below the smallest placement or above the largest.
    """
    anatomy = candidates.anatomy
    alike = ScoreTable(
        method=hybrid.scoring.method,
        unit="",
        higher_is_better=True,
        model=anatomy.model,
        anatomy_digest=anatomy.digest,
        cost=ScoringCost(),
        scores=tuple(SiteScore(path=each.site.path, value=1.0) for each in candidates.adapters),
    )
    allocate(
        alike,
        anatomy,
        Budget(amount=target),
        lora=study.lora,
        constraints=hybrid.constraints,
        solver="greedy",
        root=study.root,
    )


def _at_study_rank(study: StudySpec, anatomy: Anatomy, spec: PlacementSpec) -> Placement:
    try:
        return place(
            anatomy,
            spec.rule,
            rank=study.lora.rank,
            alpha=study.lora.alpha,
            scaling=study.lora.scaling,
            root=study.root,
        )
    except PlacementError as error:
        raise refused(study, spec.name, error) from error


def refused(study: StudySpec, name: str, why: object) -> StudyError:
    """Return the error that says, with file and line, what is wrong with a placement.

    Args:
        study: the study.
        name: of the placement.
        why: the reason; a file that it begins with is not said twice.
    """
    line, reason = study.placements[name].line, str(why).removeprefix(f"{study.path}: ")
    return StudyError(f"{study.path}:{line}: placements.{name}: {reason}")


def not_movable(reason: str) -> str:
    """Return why a placement that moves is refused where the packed engine does not serve it."""
    return f"a placement that moves needs the packed engine, which does not serve it: {reason}"


def families(placement: Placement) -> dict[str, int]:
    """Return adapter parameters by role family, in the order of the model."""
    found: dict[str, int] = {}
    for adapter in placement.adapters:
        family = str(adapter.site.role.family)
        found[family] = found.get(family, 0) + adapter.rank * adapter.site.parameters_per_rank
    return found
