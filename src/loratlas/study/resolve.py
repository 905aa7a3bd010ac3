"""What the placements of a study are on its model: sites, ranks, matched counts, warnings."""

from dataclasses import dataclass

from loratlas.anatomy.sites import Anatomy
from loratlas.errors import PlacementError, StudyError
from loratlas.placement.expressions import Rule
from loratlas.placement.lints import Lint, lints
from loratlas.placement.match import match_placement
from loratlas.placement.placement import Placement, place
from loratlas.placement.rules import parse
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
    """

    name: str
    rule: Rule
    placement: Placement
    matched_to: int | None
    lints: tuple[Lint, ...]


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
        raise StudyError(f"{study.path}:{spec.line}: placements.{spec.name}: {error}") from error


def families(placement: Placement) -> dict[str, int]:
    """Return adapter parameters by role family, in the order of the model."""
    found: dict[str, int] = {}
    for adapter in placement.adapters:
        family = str(adapter.site.role.family)
        found[family] = found.get(family, 0) + adapter.rank * adapter.site.parameters_per_rank
    return found
