"""What may an allocation not do? Ranks that are allowed, ties, caps, and sites to choose from.

Sites are picked by rules of the placement language that state no rank.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loratlas.allocate.budget import Budget
from loratlas.anatomy.sites import Site
from loratlas.errors import PlacementError
from loratlas.placement.expressions import ALL, WORDS
from loratlas.placement.resolve import Paths, Resolver
from loratlas.placement.rules import parse

# How far above the rank of a study a site may go unless told otherwise: GoRA's scripts go from
# 8 to 32 (2502.12171; MyTransformers, common/lora_modules/gora.py).
RANKS_ABOVE = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Tie:
    """Sites that share one rank.

    Attributes:
        rule: the sites, such as ``attention.q | attention.k | attention.v``.
        across_layers: whether all of them share it; otherwise those of each layer do.
    """

    rule: str
    across_layers: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Cap:
    """The most that the sites of a rule may take together, in the unit of the cap itself."""

    rule: str
    most: Budget


@dataclass(frozen=True, kw_only=True, slots=True)
class Constraints:
    """What holds for every allocation; by default any site may have any rank or be left out.

    Attributes:
        ranks: ranks that a site may have, 0 for a site that may be left out; None for all from
            `min_rank` to `max_rank`.
        min_rank: lowest rank of a site; None is 0, or the lowest of `ranks`.
        max_rank: highest rank of a site; None is four times the rank of the study, or the highest
            of `ranks`. No site goes above its smaller dimension.
        ties: which sites share a rank.
        caps: what groups of sites may take.
        max_sites: most sites that may have an adapter.
        only: rule for the sites to choose from; None takes every site with a score.
    """

    ranks: tuple[int, ...] | None = None
    min_rank: int | None = None
    max_rank: int | None = None
    ties: tuple[Tie, ...] = ()
    caps: tuple[Cap, ...] = ()
    max_sites: int | None = None
    only: str | None = None

    def __post_init__(self) -> None:
        for rank in (*(self.ranks or ()), self.min_rank, self.max_rank):
            if rank is not None and (isinstance(rank, bool) or not isinstance(rank, int)):
                raise PlacementError(f"a rank is a whole number, not {rank!r}")
            if rank is not None and rank < 0:
                raise PlacementError(f"a rank is not below 0: {rank}")
        if self.ranks is not None:
            self._check_ranks(self.ranks)
        if self.max_rank is not None and self.max_rank < max(1, self.min_rank or 0):
            raise PlacementError(
                f"the highest rank, {self.max_rank}, is below {max(1, self.min_rank or 0)}, the "
                "lowest that an adapter can have"
            )
        if self.max_sites is not None and self.max_sites < 1:
            raise PlacementError(f"at least 1 site has an adapter, not {self.max_sites}")

    def _check_ranks(self, ranks: tuple[int, ...]) -> None:
        listed = ", ".join(map(str, ranks))
        if not any(ranks):
            raise PlacementError(f"the ranks [{listed}] hold none above 0")
        low, high = self.min_rank or 0, self.max_rank or max(ranks)
        if not any(low <= rank <= high for rank in ranks if rank):
            ends = [f"at least {low}"] * (low > 0) + [f"at most {high}"] * (
                self.max_rank is not None
            )
            raise PlacementError(f"none of the ranks {listed} is {' and '.join(ends)}")

    def allowed(self, highest: int, study_rank: int) -> tuple[int, ...]:
        """Return the ranks that a site may have, from the lowest on; they may be none.

        Args:
            highest: rank above which an adapter is larger than its site.
            study_rank: rank that the study gives to sites.
        """
        low = self.min_rank or 0
        if self.ranks is None:
            most = RANKS_ABOVE * study_rank if self.max_rank is None else self.max_rank
            # A lowest rank above the default highest is meant.
            return tuple(range(low, min(max(most, low), highest) + 1))
        most = highest if self.max_rank is None else min(self.max_rank, highest)
        return tuple(sorted({rank for rank in self.ranks if low <= rank <= most}))


def require_no_limits(constraints: Constraints) -> None:
    """Refuse what the proportional rule cannot keep.

    Raises:
        PlacementError: there are caps, or a number of sites.
    """
    if constraints.caps or constraints.max_sites is not None:
        given = "caps" if constraints.caps else "a number of sites"
        raise PlacementError(
            f"the proportional rule keeps within no other limit, and {given} are given; take "
            "greedy or exact"
        )


def selected(rule: str, resolver: Resolver, what: str) -> Paths:
    """Return the paths that a rule picks: at least one.

    Args:
        rule: a rule of the placement language.
        resolver: the model.
        what: what the rule is for; begins the message.

    Raises:
        RuleError: the rule cannot be read.
        PlacementError: it picks nothing, or states a rank.
    """
    parsed = parse(rule)
    ranked = next((part for part in parsed.parts if part.rank is not None), None)
    if ranked is not None:
        raise PlacementError(f"{what} {rule}: {ranked} states a rank; here a rule only picks sites")
    paths = frozenset[str]().union(*(resolver.select(part.expression) for part in parsed.parts))
    if not paths:
        reasons = "; ".join(map(resolver.why_empty, resolver.dead_operands(parsed)))
        raise PlacementError(f"{what} {rule}: selects no site. {reasons}")
    return paths


def picked(rule: str, sites: Sequence[Site], resolver: Resolver, what: str) -> list[Site]:
    """Return those of the sites that a rule picks: at least one.

    Raises:
        RuleError: as for `selected`.
        PlacementError: as for `selected`, or it picks none of these sites.
    """
    paths = selected(rule, resolver, what)
    found = [site for site in sites if site.path in paths]
    if not found:
        raise PlacementError(
            f"{what} {rule}: none of the {len(paths)} sites that it selects is among the "
            f"{len(sites)} to choose from"
        )
    return found


def tied(sites: Sequence[Site], ties: Sequence[Tie], resolver: Resolver) -> list[tuple[Site, ...]]:
    """Return the sites in groups that share a rank; a site of no tie is a group by itself.

    Raises:
        RuleError: as for `selected`.
        PlacementError: a tie picks no site or binds none to another, or two share a site.
    """
    bound: dict[str, tuple[object, ...]] = {}
    for number, tie in enumerate(ties):
        keys = _keys(picked(tie.rule, sites, resolver, "the tie"), tie, number)
        both = sorted(keys.keys() & bound.keys())
        if both:
            raise PlacementError(
                f"the tie {tie.rule}: {both[0]} is in another tie, too; write the two as one"
            )
        bound |= keys
    groups: dict[tuple[object, ...], list[Site]] = {}
    for site in sites:
        groups.setdefault(bound.get(site.path, (site.path,)), []).append(site)
    return list(map(tuple, groups.values()))


def _keys(sites: Sequence[Site], tie: Tie, number: int) -> Mapping[str, tuple[object, ...]]:
    """Return, by path, what the sites that share a rank have in common."""

    def key(site: Site) -> tuple[object, ...]:
        if tie.across_layers:
            return (number,)
        return (number, site.stack, site.layer) if site.in_block else (site.path,)

    keys = {site.path: key(site) for site in sites}
    if len(set(keys.values())) == len(keys):
        where = "" if tie.across_layers else " of one layer"
        raise PlacementError(
            f"the tie {tie.rule}: binds nothing, for it selects no two sites{where}"
        )
    return keys


def rule_of_roles(text: str) -> str:
    """Return the rule for a list such as ``q, k, v``; a rule is returned as it is.

    A word of the list that is none of the language is a part of any: ``q`` is ``all.q``.
    """
    if "," not in text or "(" in text:
        return text
    entries = [entry.strip() for entry in text.split(",")]
    words = {ALL, *WORDS}
    return " | ".join(
        entry if entry.partition(".")[0] in words else f"{ALL}.{entry}" for entry in entries
    )
