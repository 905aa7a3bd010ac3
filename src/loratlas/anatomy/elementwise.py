"""What does a step do that is no matrix product: a sum, a product, an activation, a part?"""

from typing import Any

from torch import Tensor

from loratlas.anatomy import operations
from loratlas.anatomy.graph import Kind, Node, joined, node_of, origins

_KINDS = (
    (operations.CONVOLUTIONS, Kind.CONVOLUTION),
    (operations.ACTIVATIONS, Kind.ACTIVATION),
    (operations.SOFTMAXES, Kind.SOFTMAX),
    (operations.SCANS, Kind.SCAN),
)


def elementwise(name: str, args: tuple[Any, ...], sources: list[Node], result: Any) -> Node:
    """Return the node of what one torch function made.

    Args:
        name: of the function.
        args: what it was given by position.
        sources: the nodes of the tensors whose values it used; at least one.
        result: what it returned.
    """
    values = _values(sources)
    if values[0].kind is Kind.PARAMETER and name not in operations.PARTS:
        return values[0]
    if name in operations.CHOICES or (name == "max" and not isinstance(result, Tensor)):
        return Node(Kind.CHOICE, tuple(values))
    if name in operations.PARTS and sources[0].kind is Kind.PARAMETER:
        # The weights of chosen experts remember the choice.
        return Node(Kind.PARAMETER, tuple(_values(sources[1:])), sources[0].path)
    if name in operations.PARTS or name == "where":
        return _part(name, args, values, result)
    if name == "glu":
        halves = [Node(Kind.SLICE, (values[0],)) for _ in range(2)]
        return Node(Kind.MULTIPLY, (halves[0], Node(Kind.ACTIVATION, (halves[1],))))
    kind = next((kind for names, kind in _KINDS if name in names), None)
    return joined(_joining(name), values) if kind is None else Node(kind, tuple(values))


def _joining(name: str) -> Kind:
    if name in operations.PRODUCTS:
        return Kind.MULTIPLY
    return Kind.ADD if name in operations.SUMS else Kind.MERGE


def _part(name: str, args: tuple[Any, ...], values: list[Node], result: Any) -> Node:
    """Return the node of a selection; scores picked by their own top-k are a choice."""
    if name == "where" and len(values) > 1 and node_of(args[0]) in values:
        return Node(Kind.ACTIVATION, tuple(values))  # a function defined in pieces
    if len(values) > 1:
        picked = [n for n in values if n.kind is Kind.CHOICE]
        others = [n for n in values if n.kind is not Kind.CHOICE]
        chosen = {id(m) for n in picked for m in origins(n)}
        if picked and all({id(m) for m in origins(n)} & chosen for n in others):
            return Node(Kind.CHOICE, tuple(values))
        return joined(Kind.MERGE, values)
    node = values[0]
    if node.kind in (Kind.PARAMETER, Kind.CHOICE) or not isinstance(result, Tensor):
        return node
    smaller = name != "where" and result.numel() < args[0].numel()
    return Node(Kind.SLICE, (node,)) if smaller else node


def _values(sources: list[Node]) -> list[Node]:
    """Leave out repetitions, and parameters that only scale or shift a value."""
    distinct = list(dict.fromkeys(sources))
    values = [n for n in distinct if n.kind is not Kind.PARAMETER]
    return values or distinct[:1]
