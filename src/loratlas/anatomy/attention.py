"""Which maps make the queries, keys and values of attention, and which read its result?"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from loratlas.anatomy.graph import SOURCES, Kind, Node, nearest_maps, walk
from loratlas.anatomy.roles import Roles
from loratlas.anatomy.sites import Family, Role

_FUSED = {"q": "q", "k": "k", "v": "v", "kqv": "qkv", "kv": "kv", "kq": "qk", "qv": "qv"}


def _is_cross(attention: Node) -> bool:
    """Whether keys come from another stream of inputs than queries.

    Keys made from the stream of the queries and another one (merged attention, global
    tokens) are self-attention.
    """
    query, key, _ = attention.inputs
    return bool(key.leaves and query.leaves & ~key.leaves)


def _family(attentions: Iterable[Node]) -> Family:
    crossing = {_is_cross(node) for node in attentions}
    return Family.CROSS_ATTENTION if crossing == {True} else Family.ATTENTION


def inputs_of_attention(attentions: Sequence[Node], roles: Roles) -> None:
    """Find q, k and v, or their fused forms: by the arguments that a map's output reaches."""
    letters: dict[str, set[str]] = defaultdict(set)
    reached: dict[str, list[Node]] = defaultdict(list)
    for attention in attentions:
        for letter, value in zip("qkv", attention.inputs, strict=True):
            for node in _projections(attention, value, roles):
                letters[node.path].add(letter)
                reached[node.path].append(attention)
    for path, found in letters.items():
        if path in roles.block_of:
            part = _FUSED["".join(sorted(found))]
            roles.found[path] = Role(family=_family(reached[path]), part=part)


def _projections(attention: Node, value: Node, roles: Roles) -> list[Node]:
    """Return the maps that made a query, key or value.

    They stand in the block of the attention. Some models reuse keys and values of an
    earlier block; such a map is taken only if no residual sum lies in between. A choice
    (which expert makes a query) is not a part of what it chooses.
    """
    own = [n for n in nearest_maps(value, _ENDS) if roles.together(n, attention)]
    return _without_scales(value, own or nearest_maps(value, _ENDS | {Kind.ADD}))


_ENDS = SOURCES | {Kind.CHOICE}
_WEIGHTING = frozenset({Kind.SOFTMAX, Kind.ACTIVATION})


def _without_scales(value: Node, maps: list[Node]) -> list[Node]:
    """Leave out maps that only scale what the others made.

    Of several maps whose outputs are multiplied, those that came through a softmax or an
    activation scale the rest, and so do those that are narrower.
    """
    if len(maps) < 2:
        return maps
    plain = {id(n) for n in walk(value, lambda n: n.inputs, _ENDS | _WEIGHTING)}
    kept = [n for n in maps if id(n) in plain] or maps
    products = [n for n in walk(value, lambda n: n.inputs, _ENDS) if n.kind is Kind.MULTIPLY]
    for product in products:
        sides = [[n for n in nearest_maps(side, _ENDS) if n in kept] for side in product.inputs]
        widths = [max((n.d_out for n in side), default=0) for side in sides]
        scales = [n for side in sides for n in side if n.d_out < max(widths)]
        kept = [n for n in kept if n not in scales]
    return kept


def outputs_of_attention(maps: Sequence[Node], roles: Roles) -> None:
    """Find o, which reads the result of attention, and the gate that scales that result."""
    known: dict[int, bool] = {}
    read: dict[str, list[Node]] = defaultdict(list)
    readers: list[tuple[Node, list[Node]]] = []
    for node in maps:
        if node.inputs and roles.free(node) and _from_attention(node.inputs[0], known, roles):
            behind = list(walk(node.inputs[0], lambda n: n.inputs, SOURCES))
            read[node.path] += [n for n in behind if n.kind is Kind.ATTENTION]
            readers.append((node, behind))
    for node, behind in readers:
        roles.give(node, _family(read[node.path]), "o")
        for gate in _gates(behind, known, roles):
            if roles.together(gate, node):
                roles.give(gate, _family(read[node.path]), "gate")


def _gates(behind: list[Node], known: dict[int, bool], roles: Roles) -> list[Node]:
    """Return the maps whose outputs are multiplied with the result of attention."""
    gates: list[Node] = []
    for product in behind:
        if product.kind is Kind.MULTIPLY:
            attended = [_from_attention(n, known, roles) for n in product.inputs]
            if any(attended):
                sides = zip(product.inputs, attended, strict=True)
                gates += [n for side, yes in sides if not yes for n in nearest_maps(side, _ENDS)]
    return gates


def low_rank_outputs(maps: Sequence[Node], roles: Roles) -> None:
    """Find the map that comes up from a low-rank output projection: it is output too.

    The first of the two does not have the width of the stream, and the second has.
    """
    widths: dict[object, set[int]] = defaultdict(set)
    for node in maps:
        role = roles.found.get(node.path)
        if role is not None and role.part in _READ_STREAM:
            widths[roles.block_of.get(node.path)].add(node.d_in)
    for node in maps:
        before = _latents(node, roles) if node.inputs and roles.free(node) else []
        found = {roles.found.get(n.path) for n in before}
        if len(found) != 1 or (role := found.pop()) is None or role.part != "o":
            continue
        stream = widths[roles.block_of.get(node.path)]
        if node.d_out in stream and not any(n.d_out in stream for n in before):
            roles.give(node, role.family, "o")


_READ_STREAM = frozenset({"q", "k", "v", "qkv", "kv", "qk", "q_down", "kv_down"})


_PASSING = frozenset(
    {Kind.SLICE, Kind.ACTIVATION, Kind.MULTIPLY, Kind.MERGE, Kind.CONVOLUTION, Kind.SOFTMAX}
)


def _from_attention(node: Node, known: dict[int, bool], roles: Roles) -> bool:
    """Whether a value is the result of attention, not yet added to the residual stream."""
    if id(node) not in known:
        if node.kind is Kind.ADD:
            known[id(node)] = _sum_from_attention(node, known, roles)
        elif node.kind in _PASSING:
            known[id(node)] = any(_from_attention(n, known, roles) for n in node.inputs)
        else:
            known[id(node)] = node.kind is Kind.ATTENTION
    return known[id(node)]


def _sum_from_attention(node: Node, known: dict[int, bool], roles: Roles) -> bool:
    """Whether all of a sum is attention, or a branch that goes from its values past it."""
    attended = [_from_attention(n, known, roles) for n in node.inputs]
    if not any(attended):
        return False
    rest = [n for n, yes in zip(node.inputs, attended, strict=True) if not yes]
    ends = [n for value in rest for n in walk(value, lambda n: n.inputs, SOURCES)]
    found = [roles.found.get(n.path) for n in ends if n.kind in SOURCES]
    return all(role is not None and role.part in ("v", "kv", "qkv") for role in found)


def routers_of_attention(maps: Sequence[Node], roles: Roles) -> None:
    """Find the routers where queries and outputs of attention are made by chosen experts."""
    for node in maps:
        role = roles.found.get(node.path)
        if role is None or role.part not in ("q", "o") or len(node.inputs) < 1:
            continue
        value = node.inputs[0]
        behind = walk(value, lambda n: n.inputs, SOURCES | {Kind.ADD, Kind.CHOICE})
        for choice in (n for n in behind if n.kind is Kind.CHOICE):
            for router in nearest_maps(choice):
                if roles.together(router, node):
                    roles.give(router, Family.ROUTER)


def latent_attention(maps: Sequence[Node], roles: Roles) -> None:
    """Tell apart the two maps of a low-rank query or key-value path.

    A map that feeds other projections of the same attention, with no sum in between, goes
    down to the latent width, and they come up from it. One that feeds queries and keys
    alike is no latent of either.
    """
    stems: dict[str, set[str]] = defaultdict(set)
    chains: list[tuple[Node, Node, str]] = []
    for node in maps:
        stem = _latent_part(roles.found.get(node.path))
        if stem is None or not node.inputs:
            continue
        for before in _latents(node, roles):
            stems[before.path].add(stem)
            chains.append((before, node, stem))
    for before, node, stem in chains:
        if len(stems[before.path]) == 1:
            family = roles.found[node.path].family
            roles.found[before.path] = Role(family=family, part=f"{stem}_down")
            roles.found[node.path] = Role(family=family, part=f"{stem}_up")


def _latents(node: Node, roles: Roles) -> list[Node]:
    """Return the maps whose output is all that a projection reads, in its own block."""
    stop = SOURCES | {Kind.ADD}
    ends = [n for n in walk(node.inputs[0], lambda n: n.inputs, stop) if n.kind in stop]
    own = [n for n in ends if n.kind is Kind.MAP and roles.together(n, node)]
    return [n for n in own if n.path != node.path] if len(own) == len(ends) else []


def _latent_part(role: Role | None) -> str | None:
    """Return ``q`` or ``kv`` for a role that could be the upper half of a latent path."""
    if role is None or role.family not in (Family.ATTENTION, Family.CROSS_ATTENTION):
        return None
    return {"q": "q", "k": "kv", "v": "kv", "kv": "kv"}.get(role.part)
