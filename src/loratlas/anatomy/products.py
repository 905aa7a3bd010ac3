"""What does a product of two tensors mean: its factors, and the scores behind attention?"""

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

from torch import Tensor

from loratlas.anatomy.graph import Kind, Node, walk
from loratlas.anatomy.operations import MATRIX_PRODUCTS


def tensors_in(value: object) -> Iterator[Tensor]:
    """Yield the tensors in nested lists, tuples and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)


def factors(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return the factors of a matrix product; the one that gives the rows comes first."""
    if name == "einsum":
        operands = list(tensors_in(args[1:]))
        return _einsum_order(args[0], operands)
    left, right = MATRIX_PRODUCTS[name]
    given = [*args, *kwargs.values()]
    return given[left], given[right]


def summed(name: str, args: tuple[Any, ...], weight: Tensor) -> tuple[int, int] | None:
    """Return d_in and d_out where einsum gives them, else None."""
    if name != "einsum" or "." in args[0]:
        return None
    first, *rest = tensors_in(args[1:])
    return _summed_shape(args[0], weight, swapped=first is weight) if len(rest) == 1 else None


def _summed_shape(equation: str, weight: Tensor, *, swapped: bool) -> tuple[int, int]:
    """Return d_in and d_out of a weight that einsum multiplies with a value.

    The sum may run over several dimensions of the weight, or over its first, as where
    attention has a parameter of shape (width, heads, head width).

    Args:
        equation: of the two operands.
        weight: the operand that is a weight.
        swapped: whether the weight is the first operand of the equation.
    """
    terms, _, result = equation.replace(" ", "").partition("->")
    first, second = terms.split(",")
    letters, other = (first, second) if swapped else (second, first)
    sizes = dict(zip(letters, weight.shape, strict=True))
    d_in = prod(size for x, size in sizes.items() if x in other and x not in result)
    return d_in, prod(size for x, size in sizes.items() if x not in other)


def _einsum_order(equation: str, operands: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Put the operand that gives the rows of the result first, as matmul has it."""
    if len(operands) != 2:
        return operands[0], operands[-1]
    terms, _, result = equation.replace(" ", "").partition("->")
    first = terms.split(",")[0]
    keys_last = result[-1:] not in first or len(result) < 2
    return (operands[0], operands[1]) if keys_last else (operands[1], operands[0])


_TRANSPARENT = frozenset(
    {Kind.ADD, Kind.MERGE, Kind.SLICE, Kind.MULTIPLY, Kind.SOFTMAX, Kind.ACTIVATION}
)


def scores_behind(weights: Node, streams: int) -> Node | None:
    """Return the product of query and key that attention weights were made from.

    None if `weights` never went through a softmax. Of several products (content and
    position) the one is taken whose two sides both depend on a stream of the model, else
    on a learned table at least.

    Args:
        weights: what the values are multiplied with.
        streams: the bits of the streams in a node's leaves.
    """
    softmaxes = [n for n in _behind(weights) if n.kind is Kind.SOFTMAX]
    scores = [n for s in softmaxes for n in _behind(s) if n.kind is Kind.CONTRACTION]
    content = [n for n in scores if all(side.leaves & streams for side in n.inputs)]
    learned = [n for n in scores if all(side.leaves for side in n.inputs)]
    return next(iter(content or learned or scores), None)


def _behind(node: Node) -> Iterator[Node]:
    opaque = frozenset(Kind) - _TRANSPARENT
    return walk(node, lambda n: n.inputs, opaque)
