"""What does a training step compute and hold?

The step is the sum of its segments: forward, each leaves behind what autograd keeps of it;
backward, each lets that go and leaves the gradients of its adapters.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from loratlas.cost.book import Book
from loratlas.cost.layout import Layout, Stack
from loratlas.cost.segment import Segment
from loratlas.cost.setting import Adapted, Setting
from loratlas.cost.stretches import embedding, last_norm, layer_block, tail


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What one pass forward and back computes and holds.

    Attributes:
        flops: operations by (growth, whether backward).
        peak_bytes: most bytes in use above weights, adapters and the optimiser's state.
    """

    flops: Mapping[tuple[str, bool], int]
    peak_bytes: int


class Account:
    """Accounts for the steps of one model in one setting, whatever the placement."""

    def __init__(self, layout: Layout, setting: Setting) -> None:
        self._book = Book(layout, setting)

    def step(self, adapted: Adapted) -> Step:
        """Return the account of one pass.

        Args:
            adapted: where the adapters are.
        """
        return _Walk(self._book, adapted).step()


class _Walk:
    """One pass over the segments of a placement."""

    def __init__(self, book: Book, adapted: Adapted) -> None:
        self._book = book
        self._adapted = adapted
        self._flops: Counter[tuple[str, bool]] = Counter()
        self._live = 0
        self._peak = 0
        # Gradients of an earlier micro-batch are there from the start, and added to in place.
        self._accumulates = book.setting.workload.passes > 1

    def step(self) -> Step:
        stacks = self._book.layout.stacks
        forward: list[list[Segment]] = []
        memory_wants = False
        memory_bytes = 0
        for stack in stacks:
            memory = None if not forward else memory_wants
            segments = self._forward(stack, memory)
            forward.append(segments)
            memory_wants = segments[-1].wants_gradient
            if len(stacks) > len(forward):
                memory_bytes = self._bytes(stack)
                self._live += memory_bytes
        gradient = self._tail(forward[-1][-1].wants_gradient, stacks[-1])
        memory_gradient = self._backward(forward[-1], gradient)
        if len(forward) > 1:
            self._live -= memory_bytes
            self._backward(forward[0], memory_gradient)
        return Step(flops=dict(self._flops), peak_bytes=self._peak)

    def _bytes(self, stack: Stack) -> int:
        book = self._book
        return book.elements(book.tokens(stack)) * book.setting.width

    def _forward(self, stack: Stack, memory: bool | None) -> list[Segment]:
        ending, staying, angles = self._book.shared(stack)
        self._live += ending + staying + angles
        segments = [self._enter(embedding(self._book, stack, self._adapted))]
        wants = segments[0].wants_gradient
        for layer in stack.layers:
            segment = layer_block(self._book, stack, layer, self._adapted, wants, memory)
            segments.append(self._enter(segment))
            wants = segment.wants_gradient
        code = self._book.setting.blueprint.code
        if stack is not self._book.layout.stacks[-1] and code.normed_result:
            segments.append(self._enter(last_norm(self._book, stack, wants)))
        # Checkpointed blocks hold on to what they are called with.
        self._live -= 0 if wants and self._book.setting.checkpointing else ending
        self._live -= 0 if wants else angles
        return segments

    def _enter(self, segment: Segment) -> Segment:
        self._flops.update(segment.flops)
        self._peak = max(self._peak, self._live + segment.forward_peak)
        self._live += segment.saved
        return segment

    def _tail(self, wants: bool, stack: Stack) -> int:
        segment = tail(self._book, stack, self._adapted, wants)
        self._enter(segment)
        return self._leave(segment)

    def _leave(self, segment: Segment) -> int:
        """Go back over a segment; return the bytes of the gradient that goes on."""
        self._live -= segment.saved
        if segment.wants_gradient:
            self._peak = max(self._peak, self._live + segment.backward_peak)
            self._live += 0 if self._accumulates else segment.kept
        return segment.gives_gradient

    def _backward(self, segments: list[Segment], gradient: int) -> int:
        """Go back over a stack; return the bytes of the gradient for the encoder."""
        for_memory = 0
        for segment in reversed(segments):
            if not gradient:
                break
            gradient = self._leave(segment)
            if segment.gives_memory_gradient and not for_memory:
                for_memory = segment.gives_memory_gradient
                self._live += for_memory
        self._live -= for_memory
        return for_memory
