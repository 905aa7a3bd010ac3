"""What a person should know about a placement before it runs: one small function per lint.

A lint never changes or refuses anything. Its code is stable; its message says what was found,
where, and what it means.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from loratlas.anatomy.sites import Anatomy, Family, Site
from loratlas.placement.expressions import Combined, Expression, File, Names, Rule, Scoped, walk
from loratlas.placement.peft_config import reached_as_parameters
from loratlas.placement.placement import Adapter, Placement
from loratlas.placement.resolve import Paths, Resolver, roles_of

# A name that stands in two of these groups is ambiguous; experts beside dense blocks, or cross-
# beside self-attention, are what a person means by the one word.
_GROUPS = {
    Family.CROSS_ATTENTION: Family.ATTENTION,
    Family.EXPERT: Family.FEED_FORWARD,
    Family.SHARED_EXPERT: Family.FEED_FORWARD,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Lint:
    """One warning: a stable code, and a message for a person."""

    code: str
    message: str

    def to_json(self) -> dict[str, str]:
        """Return the warning as plain data."""
        return {"code": self.code, "message": self.message}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Case:
    """What the lints look at."""

    rule: Rule
    placement: Placement
    resolver: Resolver
    dropout: float


def lints(
    rule: Rule,
    placement: Placement,
    anatomy: Anatomy,
    *,
    dropout: float = 0.0,
    root: Path | None = None,
) -> list[Lint]:
    """Return every warning about a rule and the placement it gave.

    Args:
        rule: the rule that was placed.
        placement: what it gave, ranks matched or not.
        anatomy: the model.
        dropout: dropout on the adapters' input.
        root: the folder that relative paths in ``file(...)`` start from; None is the current one.
    """
    resolver = Resolver(anatomy=anatomy, root=root or Path())
    case = _Case(rule=rule, placement=placement, resolver=resolver, dropout=dropout)
    checks = (
        _ambiguous_name,
        _dead_entry,
        _rank_exceeds_dimension,
        _scale_varies,
        _file_scale,
        _router_adapted,
        _head_tied,
        _expert_dropout,
    )
    return [lint for check in checks for lint in check(case)]


def _ambiguous_name(case: _Case) -> Iterator[Lint]:
    """A name that puts adapters into blocks of different kinds, as GPT-2's c_proj does."""
    everything = frozenset(case.resolver.anatomy.by_path)
    for part in case.rule.parts:
        for entry, paths in _reached(part.expression, everything, case.resolver):
            sites = [site for site in case.resolver.anatomy.sites if site.path in paths]
            groups: dict[Family, list[Site]] = {}
            for site in sites:
                family = site.role.family
                groups.setdefault(_GROUPS.get(family, family), []).append(site)
            if len(groups) > 1:
                found = "; ".join(_group_text(group) for group in groups.values())
                kinds = " and ".join(groups)
                yield Lint(
                    code="ambiguous-name",
                    message=f"names({entry}) stands in {kinds}: {found}",
                )


def _group_text(sites: list[Site]) -> str:
    return f"{roles_of(sites)}, such as {sites[0].path}"


def _reached(
    expression: Expression, live: Paths, resolver: Resolver
) -> Iterator[tuple[str, Paths]]:
    """Yield each names entry with the sites that it decides about, given what lies around it."""
    if isinstance(expression, Names):
        for entry in expression.entries:
            yield entry, resolver.named(entry) & live
    elif isinstance(expression, Scoped):
        yield from _reached(expression.operand, live & resolver.select(expression), resolver)
    elif isinstance(expression, Combined):
        left, right = expression.left, expression.right
        live_left = live_right = live
        if expression.operator != "|":
            live_right = live & resolver.select(left)
        if expression.operator == "&":
            live_left = live & resolver.select(right)
        if expression.operator == "-":
            live_left = live - resolver.select(right)
        yield from _reached(left, live_left, resolver)
        yield from _reached(right, live_right, resolver)


def _dead_entry(case: _Case) -> Iterator[Lint]:
    """An operand that selects nothing: the rest of the rule still stands."""
    for dead in case.resolver.dead_operands(case.rule):
        yield Lint(code="dead-entry", message=f"selects nothing: {case.resolver.why_empty(dead)}")


def _rank_exceeds_dimension(case: _Case) -> Iterator[Lint]:
    """A rank above the smaller side of the map: more parameters than a full update."""
    over = [
        adapter
        for adapter in case.placement.adapters
        if adapter.rank > min(adapter.site.d_in, adapter.site.d_out)
    ]
    if over:
        first = over[0]
        yield Lint(
            code="rank-exceeds-dimension",
            message=(
                f"{_sites(over)}: the rank is above the smaller dimension, such as rank "
                f"{first.rank} for {first.site.d_in} x {first.site.d_out} at {first.site.path}; "
                "the update cannot have a higher rank than that"
            ),
        )


def _scale_varies(case: _Case) -> Iterator[Lint]:
    """Different ranks under a fixed alpha: the scale, too, differs between sites."""
    placement = case.placement
    scales = {float(f"{placement.scale(a):.9g}"): a.rank for a in placement.adapters}
    if len(scales) > 1:
        low, high = min(scales), max(scales)
        yield Lint(
            code="scale-varies",
            message=(
                f"the scale differs between sites, from {low:g} (rank {scales[low]}) to {high:g} "
                f"(rank {scales[high]}); scaling: constant keeps it equal"
            ),
        )


def _file_scale(case: _Case) -> Iterator[Lint]:
    """A saved placement whose alphas are not used: alphas follow the study's scaling."""
    files = {
        node for part in case.rule.parts for node in walk(part.expression) if isinstance(node, File)
    }
    placed = case.placement.by_path
    for file in sorted(files, key=str):
        other = [
            saved
            for path, saved in case.resolver.saved(file).items()
            if path in placed and saved.rank == placed[path].rank
            if abs(saved.alpha - placed[path].alpha) > 1e-9 * saved.alpha
        ]
        if other:
            first = other[0]
            yield Lint(
                code="file-scale",
                message=(
                    f"{file} gives {len(other)} sites another alpha than this placement, such as "
                    f"{first.alpha:g} for {placed[first.path].alpha:g} at {first.path}; "
                    "alphas follow rank, alpha and scaling of the study"
                ),
            )


def _router_adapted(case: _Case) -> Iterator[Lint]:
    """An adapted router: training changes which experts see a token."""
    routers = _of_family(case.placement, Family.ROUTER)
    if routers:
        yield Lint(
            code="router-adapted",
            message=f"{_sites(routers)}: the router is adapted, so the choice of experts changes",
        )


def _head_tied(case: _Case) -> Iterator[Lint]:
    """An adapter on one side of a tensor that embedding and head share."""
    anatomy = case.resolver.anatomy
    heads = [site for site in anatomy.sites if site.role.family is Family.HEAD]
    shapes = {(head.d_out, head.d_in) for head in heads}
    tied = [
        adapter
        for adapter in case.placement.adapters
        if adapter.site.role.family is Family.HEAD
        or (
            adapter.site.role.family is Family.EMBEDDING
            and (adapter.site.d_in, adapter.site.d_out) in shapes
        )
    ]
    if tied and anatomy.tied_head:
        yield Lint(
            code="head-tied",
            message=(
                f"{_sites(tied)}: head and embedding share their weights in this model, and an "
                "adapter changes one of them only; merging it unties them"
            ),
        )


def _expert_dropout(case: _Case) -> Iterator[Lint]:
    """Dropout on adapters of parameters, as fused experts have them, which PEFT refuses."""
    experts = reached_as_parameters(case.placement)
    if experts and case.dropout:
        yield Lint(
            code="expert-dropout",
            message=(
                f"{_sites(experts)}: PEFT refuses dropout on adapters of parameters, such as those "
                f"of experts; dropout is {case.dropout:g} and has to be 0"
            ),
        )


def _of_family(placement: Placement, family: Family) -> list[Adapter]:
    return [a for a in placement.adapters if a.site.role.family is family]


def _sites(adapters: Sequence[Adapter]) -> str:
    number = len(adapters)
    return adapters[0].site.path if number == 1 else f"{number} sites"
