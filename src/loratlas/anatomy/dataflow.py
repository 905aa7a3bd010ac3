"""What does each linear map do, judged by where its output goes in the forward pass?

No name of a module is read. Maps whose output reaches an attention product are query, key
or value; the map that reads the result is the output; an up map reaches its down map
through an activation, a gate through an activation and a product. Parts of one map that
go different ways make it a fused one. What fits no pattern has no role here.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from loratlas.anatomy.graph import SOURCES, Kind, Node, nearest_maps, walk
from loratlas.anatomy.sites import Family, Role

_FUSED = {"q": "q", "k": "k", "v": "v", "kqv": "qkv", "kv": "kv", "kq": "qk", "qv": "qv"}


@dataclass(slots=True)
class Roles:
    """The roles found so far, by path.

    Attributes:
        block_of: the block a path stands in; a path outside blocks is not in it.
        found: the roles.
        gated: the chosen paths whose maps are applied to routed tokens only.
    """

    block_of: Mapping[str, object]
    found: dict[str, Role] = field(default_factory=dict)

    def give(self, node: Node, family: Family, part: str = "") -> None:
        """Give a role to a map inside a block that has none yet."""
        if node.path in self.block_of:
            self.found.setdefault(node.path, Role(family=family, part=part))

    def free(self, node: Node) -> bool:
        """Whether a map stands in a block and has no role yet."""
        return node.path in self.block_of and node.path not in self.found

    def together(self, first: Node, second: Node) -> bool:
        """Whether two maps stand in one block."""
        return self.block_of.get(first.path) == self.block_of.get(second.path)


def find_roles(
    maps: Sequence[Node], attentions: Sequence[Node], block_of: Mapping[str, object]
) -> dict[str, Role]:
    """Return the role of each map inside a block whose part in the forward pass is known.

    Args:
        maps: applications of maps, in the order they ran.
        attentions: attention products, in the order they ran.
        block_of: the block that each path stands in, for paths inside blocks.
    """
    roles = Roles(block_of)
    linear = [node for node in maps if node.kind is Kind.MAP]
    _inputs_of_attention(attentions, roles)
    _outputs_of_attention(linear, roles)
    _latent_attention(linear, roles)
    _feed_forward(linear, roles)
    return roles.found


# Attention ------------------------------------------------------------------------------


def _is_cross(attention: Node) -> bool:
    """Whether keys come from another stream of inputs than queries."""
    query, key, _ = attention.inputs
    return bool(key.leaves) and query.leaves != key.leaves


def _family(attentions: Iterable[Node]) -> Family:
    crossing = {_is_cross(node) for node in attentions}
    return Family.CROSS_ATTENTION if crossing == {True} else Family.ATTENTION


def _inputs_of_attention(attentions: Sequence[Node], roles: Roles) -> None:
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


def _outputs_of_attention(maps: Sequence[Node], roles: Roles) -> None:
    known: dict[int, bool] = {}
    for node in maps:
        if not (node.inputs and roles.free(node) and _from_attention(node.inputs[0], known)):
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


def _from_attention(node: Node, known: dict[int, bool]) -> bool:
    """Whether a value is the result of attention, not yet added to the residual stream."""
    if id(node) not in known:
        if node.kind is Kind.ADD:
            result = all(_from_attention(n, known) for n in node.inputs)
        elif node.kind in _PASSING:
            result = any(_from_attention(n, known) for n in node.inputs)
        else:
            result = node.kind is Kind.ATTENTION
        known[id(node)] = result
    return known[id(node)]


def _latent_attention(maps: Sequence[Node], roles: Roles) -> None:
    """Tell apart the two maps of a low-rank query or key-value path.

    A map that feeds another projection of the same attention, with no sum in between,
    goes down to the latent width, and the other comes up from it.
    """
    chains = [
        (before, node)
        for node in maps
        if _latent_part(roles.found.get(node.path)) and node.inputs
        for before in nearest_maps(node.inputs[0], SOURCES | {Kind.ADD})
        if roles.together(before, node) and before.path != node.path
    ]
    for before, node in chains:
        role = roles.found[node.path]
        stem = _latent_part(role)
        if stem is None:
            continue
        roles.found[before.path] = Role(family=role.family, part=f"{stem}_down")
        roles.found[node.path] = Role(family=role.family, part=f"{stem}_up")


def _latent_part(role: Role | None) -> str | None:
    """Return ``q`` or ``kv`` for a role that could be the upper half of a latent path."""
    if role is None or role.family not in (Family.ATTENTION, Family.CROSS_ATTENTION):
        return None
    return {"q": "q", "k": "kv", "v": "kv", "kv": "kv"}.get(role.part)


# Feed-forward ---------------------------------------------------------------------------


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


def _feed_forward(maps: Sequence[Node], roles: Roles) -> None:
    for down in maps:
        if not (down.inputs and roles.free(down)):
            continue
        pattern = _pattern(_arrivals(down.inputs[0]))
        if not pattern or not all(roles.together(n, down) for n in pattern.values()):
            continue
        if not all(roles.free(n) for n in pattern.values()):
            continue
        family = _feed_forward_family(down, list(pattern.values()), roles)
        for part, node in pattern.items():
            roles.give(node, family, part)
        roles.give(down, family, "down")


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


def _arrivals(start: Node) -> set[_Arrival] | None:
    """Return how maps arrive at a value; None if the residual stream is among them."""
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
        if node.kind in SOURCES or (node.kind is Kind.ADD and _is_residual(node)):
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
    choices = [c for node in [*inner, down] for c in _choices_at(node)]
    for choice in choices:
        for router in nearest_maps(choice):
            roles.give(router, Family.ROUTER)
    return Family.EXPERT if choices else Family.FEED_FORWARD


def _choices_at(node: Node) -> list[Node]:
    """Return the choices that decide which tokens a map sees or how much its result counts."""
    opaque = frozenset(Kind) - {Kind.SLICE, Kind.MERGE, Kind.MULTIPLY, Kind.ACTIVATION}
    before = [c for value in node.inputs for c in walk(value, lambda n: n.inputs, opaque)]
    around = [
        value
        for first in node.readers
        for reader in walk(first, lambda n: n.readers, opaque)
        if reader.kind in (Kind.MULTIPLY, Kind.MERGE)
        for value in reader.inputs
    ]
    return [n for n in [*before, *around] if n.kind is Kind.CHOICE]
