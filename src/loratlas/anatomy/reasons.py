"""Why does a map inside a block have no role? What can be said of it, for a person to read."""

from collections.abc import Sequence

from loratlas.anatomy.graph import SOURCES, Kind, Node, consumers, nearest_maps, walk
from loratlas.anatomy.roles import Roles

UNKNOWN = "neither attention nor a feed-forward pattern in the forward pass"
_HIDDEN = "what reads its output is hidden from the graph of the forward pass"
_SHIFTS = "shifts the attention scores"
_CHOOSES = "takes part in a top-k choice that is no choice of experts"
_SCALES = "scales or mixes the residual stream"
_JOINS = "scales the keys or values of attention, or joins its result"
_GATES = "gates a value that enters the block from outside"
_LINEAR = "a linear path of its own, without an activation"


def find_reasons(maps: Sequence[Node], attentions: Sequence[Node], roles: Roles) -> None:
    """Note for each map inside a block without a role what it does instead.

    A map that feeds nothing but one that shifts, chooses or scales takes part in that.
    """
    shifting = {id(n) for attention in attentions for n in _behind_scores(attention)}
    for node in reversed(maps):
        if roles.free(node):
            fed = {roles.why.get(n.path) for n in consumers(node, stop_at_sums=True)}
            only = fed.pop() if len(fed) == 1 else None
            shared = only if only in (_SHIFTS, _CHOOSES, _SCALES) else None
            roles.why.setdefault(node.path, shared or _reason(node, shifting))


def _behind_scores(attention: Node) -> list[Node]:
    """Return the maps that the weights of an attention come from, beside query and key."""
    if attention.scores is None:
        return []
    query, key, _ = attention.inputs
    known = {id(n) for side in (query, key) for n in nearest_maps(side)}
    return [n for n in nearest_maps(attention.scores) if id(n) not in known]


def _reason(node: Node, shifting: set[int]) -> str:
    after = [n for r in node.readers for n in walk(r, lambda n: n.readers, SOURCES | {Kind.ADD})]
    kinds = {n.kind for n in after}
    if not kinds:
        return _HIDDEN
    if Kind.CHOICE in kinds:
        return _CHOOSES
    if id(node) in shifting:
        return _SHIFTS
    if any(_meets_stream(n) for n in after):
        return _SCALES
    if Kind.ATTENTION in kinds:
        return _JOINS
    return _reason_by_activation(node, kinds)


def _reason_by_activation(node: Node, kinds: set[Kind]) -> str:
    stop = SOURCES | {Kind.ADD}
    before = {n.kind for value in node.inputs for n in walk(value, lambda n: n.inputs, stop)}
    if Kind.ACTIVATION in kinds and Kind.MULTIPLY in kinds:
        return _GATES
    if kinds & {Kind.CONTRACTION, Kind.SOFTMAX, Kind.ACTIVATION}:
        return UNKNOWN
    return UNKNOWN if Kind.ACTIVATION in before else _LINEAR


def _meets_stream(product: Node) -> bool:
    """Whether a product has the residual stream as its other factor."""
    if product.kind not in (Kind.MULTIPLY, Kind.CONTRACTION):
        return False
    return any(n.kind in (Kind.ADD, Kind.EMBEDDING) for n in product.inputs)
