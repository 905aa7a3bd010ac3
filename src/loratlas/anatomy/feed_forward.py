"""Which maps form a feed-forward pattern, and are they dense, routed or shared?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from loratlas.anatomy.graph import SOURCES, Kind, Node, nearest_maps, walk
from loratlas.anatomy.roles import Roles
from loratlas.anatomy.sites import Family, Role


@dataclass(frozen=True, slots=True)
class _Arrival:
    """One way in which the output of a map arrives: which part of it, and how.

    Attributes:
        node: the map.
        part: the slice of its output, 0 for all of it.
        activated: whether it came through an activation.
    """

    node: Node
    part: int
    activated: bool


def feed_forward(maps: Sequence[Node], roles: Roles) -> None:
    """Find up, gate and down, dense or of experts, and the routers of the latter."""
    dense: list[list[Node]] = []
    for down in maps:
        if not (down.inputs and roles.free(down)):
            continue
        pattern = _pattern(_arrivals(down.inputs[0]))
        inner = list(pattern.values())
        if not inner or _scales_stream(down):
            continue
        if not all(roles.free(n) and roles.together(n, down) for n in inner):
            continue
        family = _feed_forward_family(down, inner, roles)
        for part, node in {**pattern, "down": down}.items():
            roles.give(node, family, "" if family is Family.ROUTER else part)
        if family is Family.FEED_FORWARD:
            dense.append([*inner, down])
    for nodes in dense:
        if _beside_experts(nodes[-1], roles):
            for node in nodes:
                part = roles.found[node.path].part
                roles.found[node.path] = Role(family=Family.SHARED_EXPERT, part=part)


def _pattern(arrivals: set[_Arrival] | None) -> dict[str, Node]:
    """Return which map is up, gate or both, an empty dictionary if neither fits."""
    if not arrivals:
        return {}
    activated = {(a.node, a.part) for a in arrivals if a.activated}
    plain = {(a.node, a.part) for a in arrivals if not a.activated} - activated
    if len(activated) != 1 or len(plain) > 1:
        return {}
    (gate, _), *_ = activated
    if not plain:
        return {"up": gate}
    (up, _), *_ = plain
    return {"gate_up": gate} if up is gate else {"gate": gate, "up": up}


_ELEMENTWISE = frozenset({Kind.SLICE, Kind.ACTIVATION, Kind.MULTIPLY, Kind.MERGE, Kind.ADD})


def _arrivals(start: Node) -> set[_Arrival] | None:
    """Return how maps arrive at a value; None if anything else does, such as the stream."""
    found: set[_Arrival] = set()
    todo = [(start, 0, False)]
    seen: set[tuple[int, int, bool]] = set()
    while todo:
        node, part, activated = todo.pop()
        if (id(node), part, activated) in seen:
            continue
        seen.add((id(node), part, activated))
        if node.kind is Kind.MAP:
            found.add(_Arrival(node, part, activated))
            continue
        if node.kind is Kind.CHOICE:
            continue
        if node.kind not in _ELEMENTWISE or (node.kind is Kind.ADD and _is_residual(node)):
            return None
        part = id(node) if node.kind is Kind.SLICE else part
        activated = activated or node.kind is Kind.ACTIVATION
        todo += [(n, part, activated) for n in node.inputs]
    return found


def _is_residual(node: Node) -> bool:
    """Whether a sum joins different sources, rather than functions of one map."""
    sources = {id(n) for n in walk(node, lambda n: n.inputs, SOURCES) if n.kind in SOURCES}
    return len(sources) > 1


def _feed_forward_family(down: Node, inner: list[Node], roles: Roles) -> Family:
    """Return the family of a pattern, and give the maps behind its choices their role.

    A choice that the pattern itself makes, rather than obeys, makes it a router.
    """
    nodes = [*inner, down]
    choices = [c for node in nodes for c in _choices_at(node)]
    routers = [router for choice in choices for router in nearest_maps(choice)]
    if any(router.path == down.path for router in routers):
        return Family.ROUTER
    for router in routers:
        roles.give(router, Family.ROUTER)
    return Family.EXPERT if choices else Family.FEED_FORWARD


def _choices_at(node: Node) -> list[Node]:
    """Return the choices that decide which tokens a map sees or how much its result counts."""
    before = [c for value in node.inputs for c in walk(value, lambda n: n.inputs, _OPAQUE)]
    around = [
        value
        for reader in _readers(node)
        if reader.kind in (Kind.MULTIPLY, Kind.MERGE)
        for value in reader.inputs
    ]
    return [n for n in [*before, *around] if n.kind is Kind.CHOICE]


def _scales_stream(down: Node) -> bool:
    """Whether the result is a factor of the residual stream, as in a gated norm."""
    products = [n for n in _readers(down) if n.kind is Kind.MULTIPLY]
    return any(v.kind in (Kind.ADD, Kind.EMBEDDING) for n in products for v in n.inputs)


def _beside_experts(down: Node, roles: Roles) -> bool:
    """Whether the result is added to that of routed experts before it joins the stream."""
    sums = [n for n in _readers(down) if n.kind is Kind.ADD]
    added = [n for s in sums for v in s.inputs for n in walk(v, lambda n: n.inputs, _OPAQUE)]
    found = [roles.found.get(n.path) for n in added if n.kind is Kind.MAP]
    return any(role is not None and role.family is Family.EXPERT for role in found)


_OPAQUE = frozenset(Kind) - {Kind.SLICE, Kind.MERGE, Kind.MULTIPLY, Kind.ACTIVATION}


def _readers(node: Node) -> Iterator[Node]:
    """Yield what reads a value, up to the next sum or map."""
    for reader in node.readers:
        yield from walk(reader, lambda n: n.readers, _OPAQUE)
