"""Which maps make the queries, keys and values of attention, and which read its result?"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from loratlas.anatomy.graph import SOURCES, Kind, Node, nearest_maps, walk
from loratlas.anatomy.roles import Roles
from loratlas.anatomy.sites import Family, Role

_FUSED = {"q": "q", "k": "k", "v": "v", "kqv": "qkv", "kv": "kv", "kq": "qk", "qv": "qv"}


def _is_cross(attention: Node) -> bool:
    """Whether keys come from another stream of inputs than queries."""
    query, key, _ = attention.inputs
    return bool(key.leaves) and query.leaves != key.leaves


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
    earlier block; such a map is taken only if no residual sum lies in between.
    """
    own = [n for n in nearest_maps(value) if roles.together(n, attention)]
    return own or nearest_maps(value, SOURCES | {Kind.ADD})


def outputs_of_attention(maps: Sequence[Node], roles: Roles) -> None:
    """Find o, which reads the result of attention, and the gate that scales that result."""
    known: dict[int, bool] = {}
    for node in maps:
        if not (node.inputs and roles.free(node)):
            continue
        if not _from_attention(node.inputs[0], known, roles):
            continue
        behind = list(walk(node.inputs[0], lambda n: n.inputs, SOURCES))
        read = [n for n in behind if n.kind is Kind.ATTENTION]
        roles.give(node, _family(read), "o")
        for gate in behind:
            if gate.kind is Kind.MAP and roles.together(gate, node):
                roles.give(gate, _family(read), "gate")


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
