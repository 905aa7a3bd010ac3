"""How does an allocation look in the terminal: ranks by layer and role, and what they come to?"""

from collections import Counter
from collections.abc import Iterator, Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from loratlas.allocate.allocation import Allocation
from loratlas.anatomy.sites import Site
from loratlas.placement.placement import Placement

_NONE = "·"


def rank_table(placement: Placement) -> Table:
    """Return the ranks of a placement: a row for each layer, a column for each role that has any.

    Where sites of one layer and role have different ranks, their numbers stand in brackets.
    """
    ranks = {adapter.site.path: adapter.rank for adapter in placement.adapters}
    shown = [site for site in placement.anatomy.sites if site.in_block or site.path in ranks]
    placed = {(site.stack, str(site.role)) for site in shown if site.path in ranks}
    stacks = {stack for stack, _ in placed}
    roles = list(dict.fromkeys(str(site.role) for site in shown))
    roles = [role for role in roles if any((stack, role) in placed for stack in stacks)]
    rows: dict[str, dict[str, list[Site]]] = {}
    for site in sorted(shown, key=lambda site: not site.in_block):
        if site.stack in stacks:
            rows.setdefault(_row(site), {}).setdefault(str(site.role), []).append(site)

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("layer")
    for header in _headers(roles):
        table.add_column(header, justify="right")
    for name, cells in rows.items():
        table.add_row(name, *(escape(_cell(cells.get(role, []), ranks)) for role in roles))
    return table


def _headers(roles: Sequence[str]) -> Iterator[str]:
    """Yield roles in two lines; a family stands above the first of its parts alone."""
    families = [role.partition(".")[0] for role in roles]
    for role, family, before in zip(roles, families, ["", *families], strict=False):
        part = role.removeprefix(family)
        yield f"{'' if family == before else family}\n{part}"


def _row(site: Site) -> str:
    return f"{site.stack} {site.layer}" if site.in_block else "outside"


def _cell(sites: Sequence[Site], ranks: dict[str, int]) -> str:
    counts = Counter(str(ranks.get(site.path, _NONE)) for site in sites)
    several = len(counts) > 1
    return ", ".join(f"{rank} ({n})" if several and n > 1 else rank for rank, n in counts.items())


def allocation_summary(allocation: Allocation) -> str:
    """Return what a budget came to, in two lines."""
    budget = allocation.budget
    share = 100 * allocation.used / budget.amount
    # The proportional rule does not keep a budget: its bound is that of what its placement takes.
    is_own = allocation.method == "proportional"
    among = " among placements that take as much" if is_own else ""
    proof = "" if allocation.gap else f", so {'none of them' if is_own else 'no other'} is better"
    return (
        f"scores by {allocation.scorer}, {allocation.method}: {allocation.used:,} of {budget} "
        f"({share:.2f}%), utility {allocation.utility:.6g}\n"
        f"gap {100 * allocation.gap:.3g}%{among}{proof}; shadow price "
        f"{allocation.shadow_price:.3g} per {budget.unit.removesuffix('s')}"
    )
