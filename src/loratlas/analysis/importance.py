"""How much does adapting each role, or each part of the layers, matter in this study?

Three answers, from the trials that are there; which placement answers what is read from its
sites and never from its name. All are reductions of the loss, in nats per token: above zero,
adapting the group helps.

- *Add-one-in*: a placement that adapts one group alone, against the untuned base.
- *Leave-one-out*: a placement that adapts all but one group, against one that adapts them all.
  The two differ where groups can stand in for each other.
- *A linear model*, where the study lacks such placements: the loss as a sum of what the share of
  each group's sites that is adapted contributes. It takes effects to add up, which the two
  comparisons above do not, and knows nothing of ranks.

Each figure is one combination of paired scores, so that its interval captures new seeds and new
examples (`loratlas.analysis.estimates`); for the linear model, of these placements. Holm's
correction is taken over the groups of each answer.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from loratlas.analysis.arms import Arms
from loratlas.analysis.components import Floats
from loratlas.analysis.contrasts import combined, pair
from loratlas.analysis.estimates import Estimate, estimate
from loratlas.analysis.groups import By, Group, Ranks, groups_of
from loratlas.analysis.multiplicity import holm
from loratlas.analysis.rivals import together
from loratlas.analysis.verdicts import general
from loratlas.anatomy.sites import Site

# Singular values below this share of the largest come from rounding.
_RANK_TOLERANCE = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect:
    """What adapting one group is worth.

    Attributes:
        group: its name.
        placement: the placement that shows it; None for the linear model.
        against: what that is held against; None for the untuned base and the linear model.
        estimate: reduction of the loss, nats per token, for this group alone.
        p_adjusted: two-sided p of "none", over the groups of one answer; None where it is not
            known for other seeds.
        says: what a person should know.
    """

    group: str
    placement: str | None
    against: str | None
    estimate: Estimate
    p_adjusted: float | None = None
    says: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearModel:
    """The loss as a sum over groups.

    Attributes:
        effects: of adapting all sites of a group; empty where the model is refused.
        placements: that it was fitted to.
        residual: root of the mean square of what it leaves unexplained, nats per token; None
            where it has as many terms as there are placements.
        explained: share of the variance between placements, None there or without any.
        says: that it is a model, or why there is none.
    """

    effects: tuple[Effect, ...] = ()
    placements: tuple[str, ...]
    residual: float | None = None
    explained: float | None = None
    says: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Importance:
    """What a study says of its groups.

    Attributes:
        by: role or layer.
        groups: those that its placements can tell apart.
        add_one_in: effects of groups that a placement adapts alone.
        leave_one_out: effects of groups that a placement leaves out alone.
        model: the linear model; None where each group has one of the other answers.
        says: what cannot be said.
    """

    by: By
    groups: tuple[Group, ...]
    add_one_in: tuple[Effect, ...]
    leave_one_out: tuple[Effect, ...]
    model: LinearModel | None
    says: tuple[str, ...]


def importance(
    arms: Arms, placements: Mapping[str, Ranks], sites: Mapping[str, Site], by: By
) -> Importance:
    """Say what each group of sites is worth.

    Args:
        arms: what was scored.
        placements: the rank of each adapted site by its path, by placement.
        sites: of the model, by path.
        by: role or layer.
    """
    groups = groups_of(placements, sites, by)
    if len(groups) < 2:
        said = f"The placements adapt every {by} alike: their parts cannot be told apart."
        return Importance(
            by=by, groups=groups, add_one_in=(), leave_one_out=(), model=None, says=(said,)
        )
    added = _adjusted(_add_one_in(arms, placements, groups))
    left = _adjusted(_leave_one_out(arms, placements, groups))
    answered = {effect.group for effect in (*added, *left)}
    says = []
    if arms.base_nll is None:
        says.append("The untuned base was not scored: there is no add-one-in.")
    return Importance(
        by=by,
        groups=groups,
        add_one_in=added,
        leave_one_out=left,
        model=None if answered >= {group.name for group in groups} else linear(arms, groups),
        says=tuple(says),
    )


def _add_one_in(
    arms: Arms, placements: Mapping[str, Ranks], groups: Sequence[Group]
) -> Iterator[Effect]:
    for group in groups:
        for name, ranks in placements.items():
            if ranks.keys() == group.paths and arms.base_nll is not None:
                gain = combined((1, arms.base_nll), (-1, arms.by_name[name].nll))
                found = estimate(gain, arms.num_tokens)
                yield Effect(
                    group=group.name, placement=name, against=None, estimate=found, says=found.says
                )


def _leave_one_out(
    arms: Arms, placements: Mapping[str, Ranks], groups: Sequence[Group]
) -> Iterator[Effect]:
    every = frozenset(path for group in groups for path in group.paths)
    wholes = [name for name, ranks in placements.items() if ranks.keys() == every]
    for group in groups:
        for name, ranks in placements.items():
            if wholes and ranks.keys() == every - group.paths:
                # Of several that adapt everything, one that differs in nothing but the group.
                whole = max(wholes, key=lambda each: _same_ranks(ranks, placements[each]))
                yield _without(arms, group, name, whole, _same_ranks(ranks, placements[whole]))


def _same_ranks(part: Ranks, whole: Ranks) -> bool:
    return all(whole[path] == rank for path, rank in part.items())


def _without(arms: Arms, group: Group, part: str, whole: str, same_ranks: bool) -> Effect:
    both = pair(arms.by_name[part], arms.by_name[whole])
    found = estimate(combined((1, both.ours), (-1, both.theirs)), arms.num_tokens)
    moved = f"The ranks of {part} differ from those of {whole}, so that this is in it too."
    return Effect(
        group=group.name,
        placement=part,
        against=whole,
        estimate=found,
        says=(*([] if same_ranks else [moved]), *both.left_out, *found.says),
    )


def linear(arms: Arms, groups: Sequence[Group]) -> LinearModel:
    """Fit the loss to the share of each group that is adapted, by least squares.

    Each coefficient is a fixed combination of the placements' losses, and is estimated as one
    combination of their scores.
    """
    chosen = [
        arm
        for arm in arms.by_name.values()
        # A placement that moves has no share of its own.
        if arm.seeds and np.isfinite(arm.nll).all() and arm.name in groups[0].shares
    ]
    names = tuple(arm.name for arm in chosen)
    shares = np.array([[group.shares[name] for group in groups] for name in names])
    design = np.column_stack([np.ones(len(chosen)), shares]) if chosen else np.zeros((0, 1))
    seeds, scores = together(*chosen) if chosen else ((), ())
    refused = _refusal(design, groups, seeds)
    if refused is not None:
        return LinearModel(placements=names, says=(refused,))
    weights = np.linalg.pinv(design)[1:]
    effects = [
        _effect(group, row, scores, arms)
        for group, row in zip(groups, weights.tolist(), strict=True)
    ]
    residual, explained = _fit(design, scores, float(arms.num_tokens.sum()))
    said: tuple[str, ...] = (
        f"A linear model of {len(names)} placements' losses in the share of each group that is "
        f"adapted, and no comparison: it takes effects to add up, whatever the ranks.",
    )
    if residual is None:
        said += ("It has as many terms as there are placements: nothing is left to check it by.",)
    left_out = [name for name in arms.by_name if name not in names]
    moving = [name for name in left_out if name not in groups[0].shares]
    unscored = [name for name in left_out if name not in moving]
    if unscored:
        said += (f"Left out, for want of scores: {', '.join(unscored)}.",)
    if moving:
        said += (f"Left out, for their sites change in training: {', '.join(moving)}.",)
    return LinearModel(
        effects=_adjusted(effects),
        placements=names,
        residual=residual,
        explained=explained,
        says=said,
    )


def _refusal(design: Floats, groups: Sequence[Group], seeds: Sequence[int]) -> str | None:
    """Say why the model is not identified."""
    terms = len(groups) + 1
    if len(design) < terms:
        return (
            f"No linear model: {len(design)} placements with scores are too few for {terms} terms."
        )
    if not seeds:
        return "No linear model: the placements have no seed in common."
    _, values, vectors = np.linalg.svd(design)
    if values[-1] > _RANK_TOLERANCE * values[0]:
        return None
    among = [g.name for g, part in zip(groups, vectors[-1][1:], strict=True) if abs(part) > 1e-6]
    return (
        f"No linear model: the shares of {', '.join(among)} determine each other in these "
        f"placements, so that their effects cannot be told apart."
    )


def _effect(group: Group, weights: Sequence[float], scores: Sequence[Floats], arms: Arms) -> Effect:
    terms = [(-weight, nll) for weight, nll in zip(weights, scores, strict=True)]
    found = estimate(combined(*terms), arms.num_tokens)
    return Effect(group=group.name, placement=None, against=None, estimate=found, says=found.says)


def _fit(
    design: Floats, scores: Sequence[Floats], num_tokens: float
) -> tuple[float | None, float | None]:
    """Return what is left unexplained, and the share that is explained."""
    losses = np.array([nll.sum() / len(nll) / num_tokens for nll in scores])
    freedom = len(losses) - design.shape[1]
    if not freedom:
        return None, None
    left = losses - design @ (np.linalg.pinv(design) @ losses)
    total = float(np.square(losses - losses.mean()).sum())
    unexplained = float(np.square(left).sum())
    explained = None if total == 0 else 1 - unexplained / total
    return float(np.sqrt(unexplained / freedom)), explained


def _adjusted(effects: Iterator[Effect] | Sequence[Effect]) -> tuple[Effect, ...]:
    found = list(effects)
    tested = [each.estimate.p_value if general(each.estimate) else None for each in found]
    return tuple(replace(each, p_adjusted=p) for each, p in zip(found, holm(tested), strict=True))
