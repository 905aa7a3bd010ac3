"""What a person should know about a placement before it runs: one small function per lint.

A lint never changes or refuses anything. Its code is stable; its message says what was found,
where, and what it means.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from loratlas.anatomy.sites import Anatomy, Family, Site
from loratlas.placement.expressions import (
    WORDS,
    Combined,
    Expression,
    File,
    Names,
    Rule,
    Scoped,
    Word,
    walk,
)
from loratlas.placement.placement import Placement
from loratlas.placement.placement_lints import (
    Lint,
    both_stacks,
    groups_of,
    groups_text,
    layer_ranges,
    names_layer,
    placement_lints,
)
from loratlas.placement.resolve import Paths, Resolver, roles_of

__all__ = ["Lint", "lints"]

# For each word that may reach some layers only: the families that do the same work elsewhere. A
# rule that adapts those, too, is not surprised by them.
_MIXERS = frozenset({Family.ATTENTION, Family.CROSS_ATTENTION, Family.RECURRENT})
_INNER = frozenset({Family.FEED_FORWARD, Family.EXPERT, Family.SHARED_EXPERT})
_PARTIAL = {
    word: _MIXERS if families & _MIXERS else _INNER
    for word, families in WORDS.items()
    if families & (_MIXERS | _INNER)
}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Case:
    """What the lints of a rule look at."""

    rule: Rule
    placement: Placement
    resolver: Resolver


def lints(
    rule: Rule,
    placement: Placement,
    anatomy: Anatomy,
    *,
    dropout: float = 0.0,
    root: Path | None = None,
    checkpointing: bool = False,
) -> list[Lint]:
    """Return every warning about a rule and the placement it gave.

    Args:
        rule: the rule that was placed.
        placement: what it gave, ranks matched or not.
        anatomy: the model.
        dropout: dropout on the adapters' input.
        root: the folder that relative paths in ``file(...)`` start from; None is the current one.
        checkpointing: whether training uses gradient checkpointing.
    """
    resolver = Resolver(anatomy=anatomy, root=root or Path())
    case = _Case(rule=rule, placement=placement, resolver=resolver)
    checks = (_ambiguous_name, _dead_entry, _role_partial, _file_scale)
    found = [lint for check in checks for lint in check(case)]
    return found + list(placement_lints(placement, dropout=dropout, checkpointing=checkpointing))


def _ambiguous_name(case: _Case) -> Iterator[Lint]:
    """A name that puts adapters into blocks of different kinds, as GPT-2's c_proj does."""
    everything = frozenset(case.resolver.anatomy.by_path)
    for part in case.rule.parts:
        for entry, paths in _reached(part.expression, everything, case.resolver):
            if len(paths) < 2:
                continue
            sites = [s for s in case.resolver.anatomy.sites if s.path in paths]
            if names_layer(entry):
                yield from both_stacks(f"names({entry})", sites)
            groups = groups_of(sites)
            if len(groups) > 1:
                yield Lint(
                    code="ambiguous-name",
                    message=f"names({entry}) stands in {groups_text(groups)}",
                )


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


def _role_partial(case: _Case) -> Iterator[Lint]:
    """A word that reaches only some layers, as expert does where the first layers are dense."""
    anatomy = case.resolver.anatomy
    everywhere = frozenset(site.path for site in anatomy.sites if site.in_block)
    for part in case.rule.parts:
        for word, live in _words(part.expression, everywhere, case.resolver):
            sites = [site for site in anatomy.sites if site.path in live]
            for stack in anatomy.stacks:
                inside = [site for site in sites if site.stack == stack]
                message = _partial_text(word, stack, inside, case)
                if message:
                    yield Lint(code="role-partial", message=message)


def _words(expression: Expression, live: Paths, resolver: Resolver) -> Iterator[tuple[Word, Paths]]:
    """Yield each word that adds sites, with everything in the layers that its scopes leave."""
    if isinstance(expression, Word):
        if expression.word in _PARTIAL:
            yield expression, live
    elif isinstance(expression, Scoped):
        stacks = {resolver.anatomy.by_path[p].stack for p in resolver.select(expression.operand)}
        reached = frozenset(p for p in live if resolver.anatomy.by_path[p].stack in stacks)
        yield from _words(expression.operand, resolver.narrow(reached, expression), resolver)
    elif isinstance(expression, Combined):
        yield from _words(expression.left, live, resolver)
        if expression.operator != "-":
            yield from _words(expression.right, live, resolver)


def _partial_text(word: Word, stack: str, sites: list[Site], case: _Case) -> str | None:
    """Say which layers of a stack a word does not reach; None where it reaches all or none."""
    selected = case.resolver.select(word)
    mine = [site for site in sites if site.path in selected]
    reached = {site.layer for site in mine}
    placed = case.placement.by_path
    kinds = _PARTIAL[word.word]
    served = {s.layer for s in sites if s.path in placed and s.role.family in kinds}
    missing = [s for s in sites if s.layer not in reached | served]
    if not mine or not missing:
        return None
    common = {site.role for site in sites if site.layer in reached}
    telling = [site for site in missing if site.role not in common]
    holds = f"hold {roles_of(telling)} instead" if telling else "have none of their own"
    return (
        f"{word} reaches layers {layer_ranges(site.layer for site in mine)} of the {stack}; "
        f"layers {layer_ranges(site.layer for site in missing)} {holds}"
    )
