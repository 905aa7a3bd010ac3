"""Which maps belong to a mixer that carries a state along the positions?

Such a mixer (state space, linear attention with a state, gated short convolution) reads
the stream, mixes positions by a convolution, a running sum or a loop over positions, and
writes the stream, without a softmax over positions.
"""

from collections.abc import Sequence

from loratlas.anatomy.graph import SOURCES, Kind, Node, consumers, walk
from loratlas.anatomy.roles import Roles
from loratlas.anatomy.sites import Family

_MIXING = frozenset({Kind.CONVOLUTION, Kind.SCAN})
# A loop over the positions leaves at least this many joined values.
_LOOP_LENGTH = 6


def recurrence(maps: Sequence[Node], roles: Roles, *, causal: bool) -> None:
    """Give ``recurrent.in``, ``recurrent.out`` and, for maps in between, ``recurrent.inner``.

    Args:
        maps: applications of linear maps, in the order they ran.
        roles: the roles found so far.
        causal: whether the model looks back only. Then products of positions without a
            softmax are linear attention, which carries a state; a model that looks both
            ways has none.
    """
    mixing_kinds = _MIXING | {Kind.CONTRACTION} if causal else _MIXING
    mixers: list[tuple[Node, list[Node]]] = []
    for node in maps:
        if node.inputs and roles.free(node):
            before = _mixed_maps(node, roles, mixing_kinds)
            if before:
                mixers.append((node, before))
    fed = {n.path for _, before in mixers for n in before}
    mixing = {node.path for node, _ in mixers}
    for node, before in mixers:
        roles.give(node, Family.RECURRENT, "inner" if node.path in fed else "out")
        for other in before:
            inner = other.path in mixing or _reads_own_block(other, roles)
            roles.give(other, Family.RECURRENT, "inner" if inner else "in")
    _first_halves(maps, roles)


def _first_halves(maps: Sequence[Node], roles: Roles) -> None:
    """Find the maps that feed nothing but inner maps of a mixer, as low-rank gates do."""
    for node in reversed(maps):
        if not (roles.free(node) and node.readers):
            continue
        fed = consumers(node, stop_at_sums=True)
        inside = all(n.kind is Kind.MAP and roles.together(n, node) for n in fed)
        found = [roles.found.get(n.path) for n in fed]
        if fed and inside and all(r is not None and r.part == "inner" for r in found):
            roles.give(node, Family.RECURRENT, "in")


def _mixed_maps(node: Node, roles: Roles, mixing_kinds: frozenset[Kind]) -> list[Node]:
    """Return the free maps of the block whose outputs reach a map through mixed positions."""
    behind = list(walk(node.inputs[0], lambda n: n.inputs, SOURCES))
    sources = [n for n in behind if n.kind in SOURCES and n.kind is not Kind.PARAMETER]
    if not all(n.kind is Kind.MAP and roles.free(n) and roles.together(n, node) for n in sources):
        return []
    joined = sum(n.kind is Kind.MERGE for n in behind)
    mixed = any(n.kind in mixing_kinds for n in behind) or joined >= _LOOP_LENGTH
    return sources if mixed else []


def _reads_own_block(node: Node, roles: Roles) -> bool:
    """Whether a map reads another map of its block, with no residual sum in between."""
    behind = walk(node.inputs[0], lambda n: n.inputs, SOURCES | {Kind.ADD})
    return any(n.kind is Kind.MAP and roles.together(n, node) for n in behind)
