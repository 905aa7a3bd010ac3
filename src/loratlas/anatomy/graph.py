"""What is a forward pass, once everything that does not change who made a value is left out?

A graph of nodes. Reshapes, norms, dropout, casts, biases, masks and constants make no
node: a value that passes through them keeps the node it had. What remains is what tells
roles apart: linear maps, products, sums, activations, attention, choices, slices.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto


class Kind(Enum):
    """What a node does."""

    INPUT = auto()  # a stream of tokens, pixels or samples that enters the model
    PARAMETER = auto()  # a parameter, or a part of one
    MAP = auto()  # a linear map applied to a value
    EMBEDDING = auto()  # rows looked up in a table
    CONVOLUTION = auto()
    CONTRACTION = auto()  # a matrix product of two values
    SOFTMAX = auto()
    ATTENTION = auto()  # inputs: query, key, value
    ACTIVATION = auto()
    MULTIPLY = auto()  # elementwise product of different values
    ADD = auto()  # elementwise sum of different values
    SLICE = auto()  # a part of a value
    MERGE = auto()  # anything else made from several values
    CHOICE = auto()  # top-k or sorting: which, rather than how much
    SCAN = auto()  # a running sum or product along positions


@dataclass(slots=True, eq=False)
class Node:
    """One step of the forward pass.

    Attributes:
        kind: what the step does.
        inputs: the steps it reads; for attention query, key and value in this order.
        path: the site of a map or embedding, or the parameter of a parameter node.
        leaves: bit set of the inputs (and learned latents) that this value depends on.
        d_in: input features of a map.
        d_out: output features of a map.
        selected: whether a value chose which of several weights a map applied.
        scores: for attention, the weights before they are applied, where they are seen.
        readers: the steps that read this one.
    """

    kind: Kind
    inputs: tuple["Node", ...] = ()
    path: str = ""
    leaves: int = 0
    d_in: int = 0
    d_out: int = 0
    selected: bool = False
    scores: "Node | None" = None
    readers: list["Node"] = field(default_factory=list)

    def __post_init__(self) -> None:
        for node in self.inputs:
            self.leaves |= node.leaves
            node.readers.append(self)


_NODE = "_loratlas_node"


def attach(value: object, node: Node) -> None:
    """Note on a tensor which step made it."""
    setattr(value, _NODE, node)


def node_of(value: object) -> Node | None:
    """Return the node of a tensor, None for a constant."""
    return getattr(value, _NODE, None)


SOURCES = frozenset({Kind.MAP, Kind.EMBEDDING, Kind.INPUT, Kind.PARAMETER, Kind.ATTENTION})


def walk(
    start: Node, step: Callable[[Node], tuple[Node, ...] | list[Node]], stop: frozenset[Kind]
) -> Iterator[Node]:
    """Yield `start` and what it reaches, once each, without going beyond kinds in `stop`."""
    seen, todo = {id(start)}, [start]
    while todo:
        node = todo.pop()
        yield node
        if node.kind in stop:
            continue
        for following in step(node):
            if id(following) not in seen:
                seen.add(id(following))
                todo.append(following)


def nearest_maps(start: Node, stop: frozenset[Kind] = SOURCES) -> list[Node]:
    """Return the linear maps that `start` comes from, with no other source in between."""
    return [n for n in walk(start, lambda node: node.inputs, stop) if n.kind is Kind.MAP]


def consumers(start: Node, *, stop_at_sums: bool = False) -> list[Node]:
    """Return the maps and attentions that read a value, with no other of them in between.

    Args:
        start: the value.
        stop_at_sums: whether a sum ends the way too, and counts as a consumer.
    """
    stop = _CONSUMERS | {Kind.ADD} if stop_at_sums else _CONSUMERS
    found = [n for reader in start.readers for n in walk(reader, lambda n: n.readers, stop)]
    return [n for n in dict.fromkeys(found) if n.kind in stop]


_CONSUMERS = frozenset({Kind.MAP, Kind.ATTENTION})


def joined(kind: Kind, values: list[Node]) -> Node:
    """Return a node over several values; a single one stays what it is."""
    return values[0] if len(values) == 1 else Node(kind, tuple(values))


def origins(node: Node) -> list[Node]:
    """Return the maps and sums that a value comes from."""
    stop = SOURCES | {Kind.ADD}
    return [n for n in walk(node, lambda n: n.inputs, stop) if n.kind in stop]
