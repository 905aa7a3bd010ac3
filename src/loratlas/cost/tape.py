"""What does one pass forward and back compute, hold and let go of? A training step in numbers.

A `Value` stands for a tensor: it has a size but no content. Operations make new values, keep
for the backward pass what PyTorch's autograd keeps (``tools/autograd/derivatives.yaml``), and
count the multiplications that ``torch.utils.flop_counter`` counts: matrix products, and
nothing else. `Tape.backward` then runs the recorded steps in autograd's order, newest first.

A value lives exactly as long as something refers to it. That is also how PyTorch frees tensors,
so a model's forward pass written with these operations holds at every moment what the model
holds. It rests on CPython's reference counts, as PyTorch itself does.
"""

import sys
from collections.abc import Callable, Sequence
from heapq import heappop, heappush

FLOAT32 = 4
INDEX = 8


class Storage:
    """The memory of one tensor, counted while the object lives."""

    __slots__ = ("size", "tape")

    def __init__(self, tape: "Tape", size: int) -> None:
        self.tape = tape
        self.size = size
        tape.live += size
        if tape.live > tape.peak:
            tape.peak = tape.live

    def __del__(self) -> None:
        self.tape.live -= self.size


Gradients = Callable[[Storage], Sequence[Storage | None]]
"""The gradients of a step's inputs from that of its result; None where no input wants one."""


class Node:
    """One step of the backward pass.

    Attributes:
        order: its place in the forward pass.
        inputs: the steps that its gradients go on to, None where no gradient is wanted.
        gradients: computes them; None for a leaf, at which a gradient ends.
        saved: what autograd keeps for it; let go once it has run.
        is_parameter: whether it is a leaf whose gradient stays until the optimiser has run.
    """

    __slots__ = ("gradients", "inputs", "is_parameter", "order", "saved")

    def __init__(
        self,
        order: int,
        inputs: Sequence["Node | None"],
        gradients: Gradients | None = None,
        saved: Sequence[Storage] = (),
        *,
        is_parameter: bool = False,
    ) -> None:
        self.order = order
        self.inputs = inputs
        self.gradients = gradients
        self.saved = saved
        self.is_parameter = is_parameter


class Value:
    """A tensor: how many elements, how many bytes each, and whether it wants a gradient."""

    __slots__ = ("node", "num_elements", "storage", "width")

    def __init__(self, num_elements: int, width: int, storage: Storage, node: Node | None) -> None:
        self.num_elements = num_elements
        self.width = width
        self.storage = storage
        self.node = node

    @property
    def wants_gradient(self) -> bool:
        """Whether something trainable lies before it."""
        return self.node is not None


class Tape:
    """The account of a pass: bytes in use, the most that were in use, operations.

    Attributes:
        live: bytes in use now.
        peak: the most bytes that were in use.
        flops: operations by how they grow with a row's length, and whether backward.
        kept: gradients of trainable parameters; they stay until the optimiser has run.
        on_cpu: whether dropout keeps a float for each element, as on a CPU, or one byte.
        handed_up: attention's weights, which a block is given beside attention's result and
            holds until it ends.
        saves: whether anything is kept for the way back; under checkpointing nothing is.
        flops_until_saved: operations before the last step that keeps something. A checkpointed
            stretch is run again up to there and no further.
    """

    def __init__(self, *, on_cpu: bool = True, saves: bool = True) -> None:
        self.live = 0
        self.peak = 0
        self.flops: dict[tuple[str, bool], int] = {}
        self.kept: list[Storage] = []
        self.on_cpu = on_cpu
        self.saves = saves
        self.flops_until_saved: dict[tuple[str, bool], int] = {}
        self.handed_up: Storage | None = None
        self._num_nodes = 0

    def new(self, num_elements: int, width: int) -> Storage:
        """Return fresh memory."""
        return Storage(self, num_elements * width)

    def value(self, num_elements: int, width: int, node: Node | None = None) -> Value:
        """Return a fresh tensor."""
        return Value(num_elements, width, self.new(num_elements, width), node)

    def node(
        self, inputs: Sequence[Value], gradients: Gradients, saved: Sequence[Storage] = ()
    ) -> Node | None:
        """Record a step of the backward pass; None when no input wants a gradient."""
        nodes = [value.node for value in inputs]
        if not any(nodes):
            return None
        self._num_nodes += 1
        if saved:
            self.flops_until_saved = dict(self.flops)
        return Node(self._num_nodes, nodes, gradients, saved if self.saves else ())

    def count(self, flops: int, growth: str, *, backward: bool = False) -> None:
        """Count operations that grow with the tokens, with pairs of tokens, or not at all."""
        key = (growth, backward)
        self.flops[key] = self.flops.get(key, 0) + flops

    def parameter(self, num_elements: int, width: int = FLOAT32) -> Value:
        """Return a trainable parameter. It takes no memory here: it is there before the step."""
        return Value(num_elements, width, self.new(0, 0), Node(0, (), is_parameter=True))

    def asked_for(self, value: Value, *, held: bool) -> Value:
        """Return a value whose gradient is wanted though nothing trainable lies before it.

        A leaf of the graph stays as long as the graph does; `held` counts it for that time.
        """
        saved = (value.storage,) if held else ()
        node = value.node or Node(0, (), saved=saved, is_parameter=True)
        return Value(value.num_elements, value.width, value.storage, node)

    def outside(
        self, num_elements: int, width: int, *, wants_gradient: bool, counted: bool
    ) -> Value:
        """Return a value that was made elsewhere, its memory counted here or there."""
        storage = self.new(num_elements if counted else 0, width)
        return Value(num_elements, width, storage, Node(0, ()) if wants_gradient else None)

    def backward(self, last: Node, gradient: Storage) -> dict[Node, Storage]:
        """Run the backward pass from its last step.

        Args:
            last: the step that made the result.
            gradient: the gradient of the result.

        Returns:
            the gradients that arrived at values from `outside`.
        """
        arrived: dict[Node, Storage] = {}
        waiting: dict[Node, Storage] = {last: gradient}
        queue = [(-last.order, id(last), last)]
        del gradient
        while queue:
            node = heappop(queue)[2]
            if node.gradients is None:
                target = waiting.pop(node)
                if node.is_parameter:
                    self.kept.append(target)
                else:
                    arrived[node] = target
                continue
            found = list(node.gradients(waiting.pop(node)))
            node.saved = ()
            self._pass_on(node.inputs, found, waiting, queue)
        return arrived

    def _pass_on(
        self,
        inputs: Sequence[Node | None],
        found: list[Storage | None],
        waiting: dict[Node, Storage],
        queue: list[tuple[int, int, Node]],
    ) -> None:
        for number, node in enumerate(inputs):
            gradient, found[number] = found[number], None
            if node is None or gradient is None:
                continue
            if node in waiting:
                waiting[node] = self._sum(waiting.pop(node), gradient)
            else:
                waiting[node] = gradient
                heappush(queue, (-node.order, id(node), node))
            del gradient

    def _sum(self, old: Storage, new: Storage) -> Storage:
        """Add two gradients: in place where nobody else holds the older one."""
        if sys.getrefcount(old) <= _ALONE:
            return old
        return Storage(self, new.size)


# The references to a gradient that only the sum holds: the argument and getrefcount's own.
_ALONE = 2
