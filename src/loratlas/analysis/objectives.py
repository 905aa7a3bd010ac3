"""What may be traded between placements, and how far may each figure be off?

Losses and accuracies are drawn together from their joint distribution (`loratlas.analysis.joint`:
new seeds and new examples). Times are drawn as medians of resampled steps of the probe, which is
how far that probe's time varies and not how far another day's would. Parameters, bytes and peaks
of memory are taken as they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from loratlas.analysis.arms import Arms
from loratlas.analysis.components import Floats
from loratlas.analysis.costs import Cost
from loratlas.analysis.joint import joint
from loratlas.errors import RequestError, did_you_mean

Objective = Literal["loss", "accuracy", "parameters", "memory", "time", "adapter_bytes"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
SCORED: tuple[Objective, ...] = ("loss", "accuracy")


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """Placements whose every figure is known; all figures turned so that low is good.

    Attributes:
        objectives: what the figures are of.
        signs: -1 where an objective is better when high, shape (objectives,).
        placements: their names, in the order of the study.
        values: best estimates, shape (placements, objectives).
        drawn: draws of those that are uncertain, shape (draws, placements); empty where
            nothing is, or where that cannot be said.
        unsure: whether there are scores, but no way to say how far they may be off.
        seeds: those that losses and accuracies rest on; every placement has them all.
        left_out: other placements, and why.
        says: what the draws do not capture, or why there are none.
    """

    objectives: tuple[Objective, ...]
    signs: Floats
    placements: tuple[str, ...]
    values: Floats
    drawn: Mapping[Objective, Floats]
    unsure: bool
    seeds: tuple[int, ...]
    left_out: Mapping[str, str]
    says: tuple[str, ...]


def check_objectives(names: Sequence[str]) -> tuple[Objective, ...]:
    """Return the objectives of these names.

    Raises:
        RequestError: there are not two or three different ones, or one is unknown.
    """
    for name in names:
        if name not in OBJECTIVES:
            raise RequestError(
                f"{name}: there is no such objective{did_you_mean(name, OBJECTIVES)}; "
                f"it is one of {', '.join(OBJECTIVES)}"
            )
    if not 2 <= len(set(names)) == len(names) <= 3:
        raise RequestError(
            f"a frontier takes two or three different objectives, not {', '.join(names) or 'none'}"
        )
    return tuple(each for name in names for each in OBJECTIVES if each == name)


def figures(
    arms: Arms,
    costs: Mapping[str, Cost],
    objectives: tuple[Objective, ...],
    *,
    seed: int,
    num_draws: int,
) -> Figures:
    """Gather the figures of the placements of a run, and draws of those that are uncertain."""
    asks_scores = any(each in SCORED for each in objectives)
    left_out = {
        name: said
        for name in arms.by_name
        if (said := _missing(arms, costs[name], name, objectives))
    }
    names = tuple(name for name in arms.by_name if name not in left_out)
    seeds = _common_seeds(arms, names) if asks_scores else ()
    if asks_scores and not seeds:
        left_out |= dict.fromkeys(names, "The placements have no seed in common.")
        names = ()
    scored = _scored(arms, names, seeds, objectives)
    signs = np.array([-1.0 if each == "accuracy" else 1.0 for each in objectives])
    drawn, says = _drawn(arms, [costs[name] for name in names], scored, objectives, seed, num_draws)
    return Figures(
        objectives=objectives,
        signs=signs,
        placements=names,
        values=signs * _values(costs, names, objectives, scored, float(arms.num_tokens.sum())),
        drawn={each: signs[objectives.index(each)] * found for each, found in drawn.items()},
        unsure=bool(scored) and not drawn.keys() & set(SCORED),
        seeds=seeds,
        left_out=left_out,
        says=says,
    )


def _missing(arms: Arms, cost: Cost, name: str, objectives: Sequence[Objective]) -> str | None:
    """Say why a placement has not all of the figures."""
    nll = arms.by_name[name].nll
    if cost.num_failed:
        return f"{cost.num_failed} of {cost.num_trials} trials diverged or failed."
    if any(each in SCORED for each in objectives) and not (nll.size and arms.num_tokens.sum()):
        return "It has no scores."
    if "loss" in objectives and not np.isfinite(nll).all():
        return "Some of its scores are no numbers."
    if "accuracy" in objectives and None in (each.accuracy for each in arms.scores[name].values()):
        return "Its accuracy is not known."
    if "memory" in objectives and cost.memory_bytes is None:
        return "Its memory is not known."
    if "time" in objectives and cost.seconds is None:
        return "Its time is not known."
    return None


def _common_seeds(arms: Arms, names: Sequence[str]) -> tuple[int, ...]:
    found = [set(arms.by_name[name].seeds) for name in names]
    return tuple(sorted(set.intersection(*found))) if found else ()


def _scored(
    arms: Arms, names: Sequence[str], seeds: Sequence[int], objectives: Sequence[Objective]
) -> dict[Objective, Floats]:
    """Return what was scored of each example, shape (placements, seeds, examples) each."""
    found: dict[Objective, Floats] = {}
    kept = arms.num_tokens > 0
    chosen = [arms.by_name[name] for name in names]
    if chosen and "loss" in objectives:
        rows = [[arm.nll[arm.seeds.index(seed), kept] for seed in seeds] for arm in chosen]
        found["loss"] = np.array(rows, dtype=np.float64)
    if chosen and "accuracy" in objectives:
        rows = [[arms.scores[name][seed].num_correct[kept] for seed in seeds] for name in names]
        found["accuracy"] = np.array(rows, dtype=np.float64)
    return found


def _values(
    costs: Mapping[str, Cost],
    names: Sequence[str],
    objectives: Sequence[Objective],
    scored: Mapping[Objective, Floats],
    num_tokens: float,
) -> Floats:
    """Return the figures in their own direction, shape (placements, objectives)."""
    columns = [
        scored[each].sum(axis=-1).mean(axis=-1) / num_tokens
        if each in scored
        else np.array([_cost(costs[name], each) for name in names], dtype=np.float64)
        for each in objectives
    ]
    return np.stack(columns, axis=-1)


def _cost(cost: Cost, objective: Objective) -> float | None:
    return {
        "parameters": cost.parameters,
        "memory": cost.memory_bytes,
        "time": cost.seconds,
        "adapter_bytes": cost.adapter_bytes,
    }.get(objective)


def _drawn(
    arms: Arms,
    costs: Sequence[Cost],
    scored: Mapping[Objective, Floats],
    objectives: Sequence[Objective],
    seed: int,
    count: int,
) -> tuple[dict[Objective, Floats], tuple[str, ...]]:
    """Return draws of the uncertain figures, and what is to be said of them."""
    chance = np.random.default_rng(seed)
    drawn: dict[Objective, Floats] = {}
    says: list[str] = []
    if scored:
        size = next(iter(scored.values())).shape
        if min(size[1:]) > 1:
            drawn |= _draw_scores(scored, arms.num_tokens[arms.num_tokens > 0], count, chance)
        else:
            which = "seed" if size[1] < 2 else "example"
            says.append(f"One {which}: how sure the frontier is cannot be said.")
    if "time" in objectives and costs:
        drawn["time"] = np.stack([_times(cost, count, chance) for cost in costs], axis=-1)
        says.append("Of time, only the spread of the probe's steps is captured.")
    return drawn, tuple(says)


def _draw_scores(
    scored: Mapping[Objective, Floats],
    num_tokens: np.ndarray[tuple[int, ...], np.dtype[np.generic]],
    count: int,
    chance: np.random.Generator,
) -> dict[Objective, Floats]:
    stacked = np.concatenate(list(scored.values()))
    # Two names of one placement have the same scores and stay equal in every draw.
    flat, which = np.unique(stacked.reshape(len(stacked), -1), axis=0, return_inverse=True)
    together = joint(flat.reshape(-1, *stacked.shape[1:]), num_tokens.astype(np.float64))
    both = together.draw(count, chance)[:, which]
    return dict(zip(scored, np.split(both, len(scored), axis=1), strict=True))


def _times(cost: Cost, count: int, chance: np.random.Generator) -> Floats:
    """Return medians of resampled steps, scaled to a trial, shape (count,)."""
    assert cost.seconds is not None
    steps = np.array(cost.step_seconds)
    middle = float(np.median(steps)) if len(steps) > 1 else 0.0
    if middle <= 0:
        return np.full(count, cost.seconds)
    medians = np.median(chance.choice(steps, size=(count, len(steps))), axis=1)
    return np.asarray(medians * (cost.seconds / middle))
