"""Which policy does a study ask for, where does a trial begin, and can it work at all? No torch."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from loratlas.anatomy.sites import Family, Site
from loratlas.dynamic.options import AdaLoraOptions, EntropyOptions, Options, SaliencyOptions
from loratlas.dynamic.schedule import Schedule
from loratlas.errors import PlacementError, did_you_mean
from loratlas.placement.match import match_placement
from loratlas.placement.placement import Adapter, LoraSpec, Placement

if TYPE_CHECKING:
    from loratlas.train.policy import Form, Policy

QUERY_AND_KEY = frozenset({"q", "k", "qk", "q_down", "q_up"})
"""Parts of attention that make queries or keys and nothing else."""

_ROOM = 4
"""Capacity of a site without `max_rank`, in the ranks that it begins with."""


class Kind(NamedTuple):
    """A policy that can be asked for.

    Attributes:
        title: what it does, in one sentence.
        options: what it can be told.
        notes: what a person should know of its results.
        form: how ΔW is made.
    """

    title: str
    options: type[Options]
    notes: tuple[str, ...] = ()
    form: "Form" = "product"


POLICIES: Mapping[str, Kind] = {
    "saliency": Kind(
        "prunes the columns of least gate saliency and grows the sites of the most",
        SaliencyOptions,
    ),
    "adalora": Kind(
        "silences the triplets of least importance in P·diag(λ)·Q, as AdaLoRA does",
        AdaLoraOptions,
        form="svd",
    ),
    "attention_entropy": Kind(
        "saliency with a prior from the entropy of attention, on q and k only (experimental)",
        EntropyOptions,
        (
            "attention_entropy is experimental: no study shows that the entropy of attention says "
            "where rank belongs; it is a prior on the saliency of q and k, and of no other site",
        ),
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicySpec:
    """A policy as a study file gives it.

    Attributes:
        name: one of `POLICIES`.
        options: what it was told, defaults filled in.
    """

    name: str
    options: Options

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Self:
        """Read ``{policy: saliency, initial: 1.5, ...}``.

        Raises:
            PlacementError: there is no such policy or option, or a value is not allowed.
        """
        given = dict(data)
        name = given.pop("policy", None)
        if not isinstance(name, str) or name not in POLICIES:
            raise PlacementError(
                f"unknown policy {name!r}{did_you_mean(str(name), POLICIES)}; "
                f"it is one of {', '.join(POLICIES)}"
            )
        options = POLICIES[name].options
        allowed = [field.name for field in fields(options)]
        for key in given:
            if key not in allowed:
                raise PlacementError(
                    f"policy {name} has no option {key}{did_you_mean(str(key), allowed)}; "
                    f"it takes {', '.join(allowed)}"
                )
        return cls(name=name, options=options(**given))

    @property
    def title(self) -> str:
        """What the policy does, in one sentence."""
        return POLICIES[self.name].title

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of its results."""
        return POLICIES[self.name].notes

    @property
    def form(self) -> "Form":
        """How ΔW is made while it trains."""
        return POLICIES[self.name].form

    @property
    def num_rows(self) -> int:
        """Training rows that are read before training."""
        return self.options.rows if isinstance(self.options, EntropyOptions) else 0

    def to_json(self) -> dict[str, Any]:
        """Return policy and options as plain data, as `read` takes them."""
        return {"policy": self.name, **asdict(self.options)}


def initial_placement(
    spec: PolicySpec, candidates: Placement, target_parameters: int, lora: LoraSpec
) -> Placement:
    """Return where a trial begins: the candidates' ranks, scaled to `initial` times the target.

    Sites have the scales that the candidates have, and keep them: otherwise `initial` would decide
    on them wherever a scale follows from a rank.

    Args:
        spec: the policy.
        candidates: the sites that the policy may use, at the study's ranks.
        target_parameters: parameters that are live at the end, at most.
        lora: how alphas follow the ranks.

    Raises:
        PlacementError: the target is below the smallest placement or above the largest, ranks
            cannot be within the bounds, or the policy has no site to work on.
    """
    _require_queries(spec, candidates)
    _require_between(spec, candidates, target_parameters)
    begun = max(1, round(spec.options.initial * target_parameters))
    placement = match_placement(candidates, begun, lora).placement
    for adapter in placement.adapters:
        _require_rank(spec, adapter)
    if placement.scaling == "constant":  # every rank has the same scale
        return placement
    return candidates.with_ranks({each.site.path: each.rank for each in placement.adapters})


def smallest(spec: PolicySpec, sites: Iterable[Site]) -> int:
    """Return the parameters of the smallest placement: `min_rank` everywhere, or any one column."""
    costs = [site.parameters_per_rank for site in sites]
    return max(spec.options.min_rank * sum(costs), *costs)


def largest(spec: PolicySpec, sites: Iterable[Site]) -> int:
    """Return the parameters of the largest placement: `max_rank` or full rank everywhere."""
    ranks = ((site, _max_rank(spec) or min(site.d_in, site.d_out)) for site in sites)
    return sum(rank * site.parameters_per_rank for site, rank in ranks)


def capacities(spec: PolicySpec, placement: Placement) -> dict[str, int]:
    """Return the largest rank that each site may come to, by path.

    Args:
        spec: the policy.
        placement: where a trial begins.
    """
    if not isinstance(spec.options, SaliencyOptions):
        return {adapter.site.path: adapter.rank for adapter in placement.adapters}
    # A trial that begins below its target grows from there.
    room = _ROOM / min(1, spec.options.initial)
    return {
        adapter.site.path: _max_rank(spec) or _capacity(adapter, room)
        for adapter in placement.adapters
    }


def schedule_of(
    spec: PolicySpec, placement: Placement, target_parameters: int, total_steps: int
) -> Schedule:
    """Return the budget of a trial over its steps, in the unit that the policy counts.

    Args:
        spec: the policy.
        placement: where the trial begins.
        target_parameters: parameters that are live at the end, at most.
        total_steps: optimiser steps of the training.

    Raises:
        PlacementError: the schedule is longer than the training.
    """
    options = spec.options
    start, end = placement.trainable_parameters, target_parameters
    if isinstance(options, AdaLoraOptions) and options.unit == "ranks":
        ranks = sum(adapter.rank for adapter in placement.adapters)
        fewest = max(1, options.min_rank * len(placement.adapters))
        start, end = ranks, min(ranks, max(fewest, ranks * end // start))
    return Schedule.planned(
        start=start,
        end=end,
        total_steps=total_steps,
        warmup=options.warmup,
        final=options.final,
        interval=options.interval,
    )


def build(
    spec: PolicySpec,
    *,
    placement: Placement,
    target_parameters: int,
    total_steps: int,
    priors: Mapping[str, float] | None = None,
) -> "Policy":
    """Return the policy of one trial; it holds state, so that each trial has its own.

    Args:
        spec: the policy.
        placement: where the trial begins, as `initial_placement` gives it.
        target_parameters: parameters that are live at the end, at most.
        total_steps: optimiser steps of the training.
        priors: what saliency is multiplied by at some sites, by path; `attention_entropy` alone
            takes and needs it.

    Raises:
        PlacementError: the schedule is longer than the training.
        ValueError: priors are missing, or given where none are taken.
    """
    # Imported here because policies import torch, which a specification does without.
    from loratlas.dynamic.adalora import AdaLora
    from loratlas.dynamic.saliency import Saliency

    if (priors is None) is (spec.name == "attention_entropy"):
        raise ValueError(
            f"policy {spec.name}: priors are {'missing' if priors is None else 'not taken'}"
        )
    schedule = schedule_of(spec, placement, target_parameters, total_steps)
    if isinstance(spec.options, AdaLoraOptions):
        return AdaLora(
            schedule=schedule,
            options=spec.options,
            placement=placement,
            target=target_parameters,
        )
    assert isinstance(spec.options, SaliencyOptions)
    return Saliency(
        name=spec.name,
        schedule=schedule,
        options=spec.options,
        capacities=capacities(spec, placement),
        smallest=smallest(spec, (adapter.site for adapter in placement.adapters)),
        priors=priors or {},
    )


def is_query_or_key(site: Site) -> bool:
    """Whether a site makes queries or keys of self-attention, and nothing else."""
    return site.role.family is Family.ATTENTION and site.role.part in QUERY_AND_KEY


def _max_rank(spec: PolicySpec) -> int | None:
    return spec.options.max_rank if isinstance(spec.options, SaliencyOptions) else None


def _capacity(adapter: Adapter, room: float) -> int:
    full = min(adapter.site.d_in, adapter.site.d_out)
    return max(adapter.rank, min(int(room * adapter.rank), full))


def _require_queries(spec: PolicySpec, candidates: Placement) -> None:
    if spec.name != "attention_entropy":
        return
    if any(is_query_or_key(adapter.site) for adapter in candidates.adapters):
        return
    if any(map(is_query_or_key, candidates.anatomy.sites)):
        why = "the rule selects no site that makes queries or keys; widen it by attention.q"
    else:
        why = f"{candidates.anatomy.model} has no site that makes queries or keys alone"
    raise PlacementError(f"policy attention_entropy: {why}")


def _require_between(spec: PolicySpec, candidates: Placement, target: int) -> None:
    sites = [adapter.site for adapter in candidates.adapters]
    least, most = smallest(spec, sites), largest(spec, sites)
    if not least <= target <= most:
        side = "below the smallest" if target < least else "above the largest"
        raise PlacementError(
            f"policy {spec.name}: a budget of {target:,} parameters is {side} placement; over "
            f"these {len(sites)} sites it is from {least:,} to {most:,}"
        )


def _require_rank(spec: PolicySpec, adapter: Adapter) -> None:
    lowest, highest = spec.options.min_rank, _max_rank(spec)
    if adapter.rank < lowest:
        side = f"below min_rank {lowest}"
    elif highest is not None and adapter.rank > highest:
        side = f"above max_rank {highest}"
    else:
        return
    raise PlacementError(
        f"policy {spec.name}: with initial {spec.options.initial:g} a trial begins at rank "
        f"{adapter.rank} at {adapter.site.path}, {side}"
    )
