"""Which maps form a feed-forward pattern, and are they dense, routed or shared?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from loratlas.anatomy.graph import SOURCES, Kind, Node, consumers, nearest_maps, walk
from loratlas.anatomy.roles import Roles
from loratlas.anatomy.sites import Family


@dataclass(frozen=True, slots=True)
class _Arrival:
    """One way in which the output of a map arrives: which part of it, and how.

    Attributes:
        node: the map.
        part: the slice of its output, 0 for all of it.
        activations: the activations it came through.
    """

    node: Node
    part: int
    activations: frozenset[int]


_ROUTED = frozenset({Family.EXPERT, Family.ROUTER})


def feed_forward(maps: Sequence[Node], roles: Roles) -> None:
    """Find up, gate and down, dense or of experts, and the routers of the latter.

    Experts come first: a router with a hidden layer looks like a dense block of its own.
    """
    for pattern, family in list(_patterns(maps, roles)):
        if family in _ROUTED:
            _give(pattern, family, roles)
    _whole_routers(maps, roles)
    dense = [pattern for pattern, _ in _patterns(maps, roles)]
    for pattern in dense:
        if all(roles.free(node) for node in pattern.values()):
            beside = _beside_experts(pattern["down"], roles)
            _give(pattern, Family.SHARED_EXPERT if beside else Family.FEED_FORWARD, roles)
    for pattern in dense:
        _gate_of_result(pattern, roles)


def _give(pattern: dict[str, Node], family: Family, roles: Roles) -> None:
    for part, node in pattern.items():
        roles.give(node, family, "" if family is Family.ROUTER else part)


def _patterns(maps: Sequence[Node], roles: Roles) -> Iterator[tuple[dict[str, Node], Family]]:
    """Yield the maps of each pattern by their part, and the family they belong to."""
    for down in maps:
        if not (down.inputs and roles.free(down)):
            continue
        arrivals = _arrivals(down.inputs[0], roles)
        pattern = _pattern([a for a in arrivals or () if not roles.is_router(a.node)])
        inner = list(pattern.values())
        if not inner or _scales_stream(down):
            continue
        if all(roles.free(n) and roles.together(n, down) for n in inner):
            yield {**pattern, "down": down}, _feed_forward_family(down, inner, roles)


def _whole_routers(maps: Sequence[Node], roles: Roles) -> None:
    """Give the maps that feed nothing but routers the same role."""
    if not any(role.family is Family.ROUTER for role in roles.found.values()):
        return
    for node in reversed(maps):
        fed = consumers(node) if roles.free(node) else []
        if fed and all(roles.is_router(n) for n in fed):
            roles.give(node, Family.ROUTER)


def _gate_of_result(pattern: dict[str, Node], roles: Roles) -> None:
    """Find a map whose activated output is multiplied with the result of a pattern.

    As wide as the result, it is a gate. One number per token says how much a shared
    expert counts, as the router says it of the others.
    """
    down = pattern["down"]
    role = roles.found.get(down.path)
    if role is None or role.part != "down":
        return
    for product in _readers(down):
        sides = product.inputs if product.kind is Kind.MULTIPLY else ()
        for gate in (
            n for side in sides if side.kind is Kind.ACTIVATION for n in nearest_maps(side)
        ):
            if not roles.together(gate, down):
                continue
            if gate.d_out == 1 and role.family is Family.SHARED_EXPERT:
                roles.give(gate, Family.ROUTER)
            elif gate.d_out == down.d_out and "gate" not in pattern:
                roles.give(gate, role.family, "gate")


def _pattern(arrivals: Sequence[_Arrival]) -> dict[str, Node]:
    """Return which map is up, gate or both, an empty dictionary if neither fits.

    Where both factors of a gated block pass through an activation (a soft cap), the gate
    passes through more of them. Applications of one map, as to the tokens of each expert,
    count as one.
    """
    nodes: dict[tuple[str, int], Node] = {}
    activations: dict[tuple[str, int], set[int]] = {}
    for arrival in arrivals:
        key = (arrival.node.path, arrival.part)
        nodes[key] = arrival.node
        activations.setdefault(key, set()).update(arrival.activations)
    ordered = sorted(activations, key=lambda key: len(activations[key]))
    counts = [len(activations[key]) for key in ordered]
    if len(ordered) == 1 and counts[0]:
        return {"up": nodes[ordered[0]]}
    if len(ordered) != 2 or counts[0] == counts[1]:
        return {}
    up, gate = (nodes[key] for key in ordered)
    return {"gate_up": gate} if up.path == gate.path else {"gate": gate, "up": up}


_ELEMENTWISE = frozenset({Kind.SLICE, Kind.ACTIVATION, Kind.MULTIPLY, Kind.MERGE, Kind.ADD})


def _arrivals(start: Node, roles: Roles) -> set[_Arrival] | None:
    """Return how maps arrive at a value; None if anything else does, such as the stream."""
    found: set[_Arrival] = set()
    todo = [(start, 0, frozenset[int]())]
    seen: set[tuple[int, int, frozenset[int]]] = set()
    while todo:
        node, part, activations = todo.pop()
        if (id(node), part, activations) in seen:
            continue
        seen.add((id(node), part, activations))
        if node.kind is Kind.MAP:
            found.add(_Arrival(node, part, activations))
            continue
        if node.kind is Kind.CHOICE or _is_routing(node, roles):
            continue
        main = _main_of_sum(node) if node.kind is Kind.ADD else None
        if node.kind not in _ELEMENTWISE or (main is None and _is_residual(node)):
            return None
        part = id(node) if node.kind is Kind.SLICE else part
        if node.kind is Kind.ACTIVATION:
            activations |= {id(node)}
        inputs = node.inputs if main is None else (main,)
        todo += [(n, part, activations) for n in inputs]
    return found


def _is_routing(node: Node, roles: Roles) -> bool:
    """Whether a value is the share of each expert, made by a router."""
    if node.kind is not Kind.SOFTMAX:
        return False
    maps = nearest_maps(node)
    return bool(maps) and all(roles.is_router(n) for n in maps)


def _main_of_sum(node: Node) -> Node | None:
    """Return the side of a sum that a low-rank path beside it only corrects, None without."""
    if len(node.inputs) != 2 or any(n.kind is not Kind.MAP for n in node.inputs):
        return None
    low, main = sorted(node.inputs, key=lambda n: n.d_in)
    return main if low.d_in < main.d_in and low.d_out == main.d_out else None


def _is_residual(node: Node) -> bool:
    """Whether a sum joins different sources, rather than functions of one map."""
    if node.kind is not Kind.ADD:
        return False
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
    if not choices and any(node.selected for node in nodes):  # by a table of tokens
        routers = _factors(down)
    for router in routers:
        roles.give(router, Family.ROUTER)
    chosen = bool(choices) or any(node.selected for node in nodes)
    return Family.EXPERT if chosen else Family.FEED_FORWARD


def _factors(down: Node) -> list[Node]:
    """Return the maps whose outputs are multiplied with a result."""
    products = [n for n in _readers(down) if n.kind is Kind.MULTIPLY]
    maps = [m for product in products for side in product.inputs for m in nearest_maps(side)]
    return [n for n in dict.fromkeys(maps) if n.path != down.path]


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
    """Whether the result is a factor of the residual stream, as in a gated norm.

    A product of two matrices counts too: there the result mixes several streams.
    """
    after = [n for reader in down.readers for n in walk(reader, lambda n: n.readers, _OPAQUE)]
    if any(n.kind is Kind.CONTRACTION for n in after):
        return True
    products = [n for n in after if n.kind is Kind.MULTIPLY]
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
