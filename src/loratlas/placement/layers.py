"""Which layers of a stack does a scope keep, counted in indices, shares or from an end?"""

from collections.abc import Iterator

from loratlas.placement.expressions import Counted, IndexRange, Layers, PercentRange, Scope


def layers_of(scope: Scope, total: int) -> frozenset[int]:
    """Return the layers of a stack of `total` blocks that a scope keeps.

    Raises:
        LookupError: the scope asks for a layer that is not there.
    """
    if isinstance(scope, Layers):
        ranges = (_range_of(item, total) for item in scope.items)
        return frozenset(layer for layers in ranges for layer in layers)
    if isinstance(scope, Counted):
        if scope.kind == "every":
            return frozenset(range(0, total, scope.number))
        if scope.number > total:
            raise LookupError(f"{scope} asks for more layers than there are")
        start = 0 if scope.kind == "first" else total - scope.number
        return frozenset(range(start, start + scope.number))
    return frozenset(range(total))


def _range_of(item: IndexRange | PercentRange, total: int) -> Iterator[int]:
    if isinstance(item, PercentRange):
        low = 0 if item.low is None else item.low
        high = 101 if item.high is None else item.high
        return (layer for layer in range(total) if low * total <= 100 * layer < high * total)
    first = 0 if item.first is None else _index(item.first, total)
    last = total - 1 if item.last is None else _index(item.last, total)
    if first > last:
        raise LookupError(f"layers {item} run backwards")
    return iter(range(first, last + 1))


def _index(index: int, total: int) -> int:
    if not -total <= index < total:
        raise LookupError(f"layer {index} is not there")
    return index % total
