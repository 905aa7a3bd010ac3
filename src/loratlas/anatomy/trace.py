"""Which values does a model make from which, in one forward pass without weights?

Weights lie on torch's meta device, where tensors have a shape and no values. Everything
that does not depend on a weight (token ids, positions, masks) is computed on the CPU for
what it is, so that a model can look at it; where a model looks at a value that does
depend on a weight (the token indices routed to an expert), it is told something of the
right shape. Every torch function passes through `Tracer`, which records the graph.
"""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from loratlas.anatomy import operations, oracle
from loratlas.anatomy.blocks import parameter_owners
from loratlas.anatomy.elementwise import elementwise
from loratlas.anatomy.graph import Kind, Node, attach, joined, node_of
from loratlas.anatomy.products import factors, scores_behind, summed, tensors_in


class Tracer(TorchFunctionMode):
    """Record the graph of a forward pass.

    Attributes:
        maps: applications of linear maps and embeddings, in the order they ran.
        attentions: attention nodes, in the order they ran.
        bits: the bit that stands for each named input.
        ran: paths of the modules that ran.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.maps: list[Node] = []
        self.attentions: list[Node] = []
        self.bits: dict[str, int] = {}
        self.ran: set[str] = set()
        self._streams = 0
        self._running: list[str] = []
        self._owners = parameter_owners(model)
        self._hooks = [
            hook
            for path, module in model.named_modules()
            for hook in (
                module.register_forward_pre_hook(lambda *_, path=path: self._started(path)),
                module.register_forward_hook(lambda *_: self._finished(), always_call=True),
            )
        ]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        for hook in self._hooks:
            hook.remove()

    def _started(self, path: str) -> None:
        self._running.append(path)
        self.ran.add(path)

    def _finished(self) -> None:
        self._running.pop()

    def stream(self, name: str, tensor: Tensor) -> Tensor:
        """Mark a tensor as an input of the model and return it."""
        bit = self._new_bit(name)
        self._streams |= bit
        attach(tensor, Node(Kind.INPUT, path=name, leaves=bit))
        return tensor

    def _new_bit(self, name: str) -> int:
        return self.bits.setdefault(name, 1 << len(self.bits))

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run one torch function and record what its result was made from."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func))
        if name == "__get__":
            return self._attribute(func, args)
        args, kwargs = oracle.settle_devices(name, args, kwargs)
        content = tensors_in(operations.content(name, args, kwargs))
        sources = [n for n in map(self._node, content) if n is not None]
        result = oracle.run(name, func, args, kwargs)
        if sources:
            self._record(name, args, kwargs, sources, result)
        return result

    def _attribute(self, func: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        result = func(*args)
        if isinstance(result, Tensor) and (node := self._node(args[0])) is not None:
            attach(result, node)
        return result

    def _node(self, tensor: Tensor) -> Node | None:
        node = node_of(tensor)
        if node is None and (owners := self._owners.get(id(tensor))):
            return Node(Kind.PARAMETER, path=self._owner(owners))
        return node

    def _owner(self, owners: list[str]) -> str:
        """Return the site of a parameter; of a tied one, the site that is running now."""
        running = self._running[-1] if self._running else ""
        here = (p for p in owners if p == running or p.startswith(f"{running}."))
        return next(here, owners[0])

    def _record(
        self,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        sources: list[Node],
        result: Any,
    ) -> None:
        if name in operations.MATRIX_PRODUCTS or name == "einsum":
            node = self._matrix_product(name, args, kwargs, sources)
        elif name == "scaled_dot_product_attention":
            given = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
            query, key, value = (self._node(given[k]) for k in ("query", "key", "value"))
            node = self._attention(query, key, value)
        elif name == "embedding":
            node = self._embedding(args, kwargs, sources)
        else:
            node = elementwise(name, args, sources, result)
            if name in operations.PARTS and not isinstance(result, Tensor):
                self._mark_parts(node, args[0], result)
                return
        self._mark(node, name, args, kwargs, result)

    def _mark(
        self, node: Node, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        """Give the node to the result, and to a tensor that was written in place."""
        for tensor in tensors_in(result):
            attach(tensor, node)
        if operations.writes_in_place(name):
            attach(args[0], node)
            if (base := args[0]._base) is not None:
                attach(base, joined(Kind.MERGE, [n for n in (node_of(base), node) if n]))
        if isinstance(kwargs.get("out"), Tensor):
            attach(kwargs["out"], node)

    def _mark_parts(self, node: Node, whole: Tensor, parts: Any) -> None:
        """Give each of several parts a node of its own, so that q, k and v stay apart."""
        for part in tensors_in(parts):
            smaller = part.numel() < whole.numel() and node.kind is not Kind.PARAMETER
            attach(part, Node(Kind.SLICE, (node,)) if smaller else node)

    def _embedding(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], sources: list[Node]
    ) -> Node:
        table = next(n for n in sources if n.kind is Kind.PARAMETER)
        ids = tuple(n for n in sources if n.kind is not Kind.PARAMETER)
        weight = args[1] if len(args) > 1 else kwargs["weight"]
        node = Node(
            Kind.EMBEDDING, ids, table.path, d_in=int(weight.shape[0]), d_out=int(weight.shape[1])
        )
        self.maps.append(node)
        return node

    def _matrix_product(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], sources: list[Node]
    ) -> Node:
        first, second = factors(name, args, kwargs)
        left, right = self._node(first), self._node(second)
        if name == "linear" and right is not None and right.kind is Kind.PARAMETER:
            return self._map(left, right, second.shape[-1], second.shape[-2])
        if left is None or right is None:
            return self._product_with_constant(name, args, (first, second), sources)
        is_weight = [n.kind is Kind.PARAMETER for n in (left, right)]
        if is_weight == [False, True]:
            shape = second.shape[-2:] if second.dim() > 1 else (second.shape[-1], 1)
            return self._map(left, right, *(summed(name, args, second) or shape))
        if is_weight == [True, False]:
            shape = (first.shape[-1], first.shape[-2] if first.dim() > 1 else 1)
            return self._map(right, left, *(summed(name, args, first) or shape))
        if is_weight == [True, True]:
            return left
        return self._product_of_values(left, right)

    def _product_with_constant(
        self,
        name: str,
        args: tuple[Any, ...],
        both: tuple[Tensor, Tensor],
        sources: list[Node],
    ) -> Node:
        """Return the value that is left; a weight applied to a constant is a map."""
        first, second = both
        left, right = self._node(first), self._node(second)
        node = left or right or sources[0]
        tensor = first if left is not None else second
        if node.kind is not Kind.PARAMETER or not node.path or tensor.dim() < 2:
            return node
        rows, columns = tensor.shape[-2:] if tensor is second else tensor.shape[-1:-3:-1]
        return self._map(None, node, *(summed(name, args, tensor) or (rows, columns)))

    def _map(self, value: Node | None, weight: Node, d_in: int, d_out: int) -> Node:
        """Record a linear map; a weight that a choice picked keeps the choice as an input."""
        if value is not None and value.kind is Kind.PARAMETER:
            value = Node(Kind.PARAMETER, path=value.path, leaves=self._new_bit(value.path))
        inputs = (*(() if value is None else (value,)), *weight.inputs)
        node = Node(
            Kind.MAP,
            inputs,
            weight.path,
            d_in=int(d_in),
            d_out=int(d_out),
            selected=bool(weight.inputs),
        )
        self.maps.append(node)
        return node

    def _product_of_values(self, left: Node, right: Node) -> Node:
        """Record scores (query times key), or attention (softmax of scores times value)."""
        for weights, value in ((left, right), (right, left)):
            scores = scores_behind(weights, self._streams)
            if scores is not None:
                query, key = scores.inputs[0], scores.inputs[-1]
                return self._attention(query, key, value, weights)
        return Node(Kind.CONTRACTION, (left, right))

    def _attention(
        self,
        query: Node | None,
        key: Node | None,
        value: Node | None,
        scores: Node | None = None,
    ) -> Node:
        where = self._running[-1] if self._running else ""
        if value is not None and value is key and not (query and query.leaves):
            # A mean of earlier values, weighted by how they fit a learned vector: it
            # carries the residual stream on, and projects nothing.
            return Node(Kind.ADD, (value,))
        constant = Node(Kind.PARAMETER)
        inputs = (query or constant, key or constant, value or constant)
        node = Node(Kind.ATTENTION, inputs, where, scores=scores)
        self.attentions.append(node)
        return node
