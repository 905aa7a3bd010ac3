"""What does a training step compute and hold, block by block?

A block's account depends on its shape, on the adapters in it and on whether its input wants a
gradient, and on nothing else; blocks that agree in these are accounted for once. The step is
the sum: forward, each block leaves behind what autograd keeps of it; backward, each lets that
go and leaves the gradients of its adapters.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from loratlas.cost import operations as op
from loratlas.cost.blocks import activate, block, norm
from loratlas.cost.layout import Layer, Layout, Stack
from loratlas.cost.maps import apply, embed
from loratlas.cost.setting import Pass, Setting
from loratlas.cost.tape import FLOAT32, Node, Tape, Value

_INDEX_BYTES = 8

Key = tuple[object, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """The account of one stretch of a pass, its input included where it is counted.

    Attributes:
        flops: operations by (growth, whether backward).
        forward_peak: most bytes in use on the way forward.
        saved: bytes that autograd keeps until the way back.
        backward_peak: most bytes in use on the way back.
        kept: bytes of the adapters' gradients.
        wants_gradient: whether the result wants one.
        gives_gradient: bytes of the gradient that goes on to the input, 0 for none.
        gives_memory_gradient: bytes of the one that goes on to the encoder.
    """

    flops: Mapping[tuple[str, bool], int]
    forward_peak: int
    saved: int
    backward_peak: int
    kept: int
    wants_gradient: bool
    gives_gradient: int = 0
    gives_memory_gradient: int = 0


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
        self._layout = layout
        self._setting = setting
        self._width = layout.head.d_in if not layout.transforms else layout.transforms[0].d_in
        self._known: dict[Key, Segment] = {}

    def step(self, ranks: Mapping[str, int]) -> Step:
        """Return the account of one pass.

        Args:
            ranks: the rank of every adapted site, by path.
        """
        return _Walk(self, ranks).step()

    @property
    def layout(self) -> Layout:
        """The model."""
        return self._layout

    @property
    def setting(self) -> Setting:
        """The setting."""
        return self._setting

    def tokens(self, stack: Stack) -> int:
        """Return the length of a stack's rows."""
        workload = self._setting.workload
        if len(self._layout.stacks) > 1 and stack.name == "decoder":
            return workload.decoder_tokens or workload.tokens
        return workload.tokens

    def elements(self, tokens: int) -> int:
        """Return the elements of what runs between blocks."""
        return self._setting.workload.rows * tokens * self._width

    def segment(self, key: Key, make: Callable[[], Segment]) -> Segment:
        """Return a segment, made once for each key."""
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = make()
        return found

    def shared(self, stack: Stack) -> tuple[int, int, int]:
        """Return the bytes that the blocks of a stack share: until it ends, or until the step does.

        Masks and relative positions end with the stack, for every block keeps its own copy of
        what it needs; ids and labels stay.

        Returns:
            bytes that end with the stack, bytes that stay, and those of rotary angles, which
            stay where a block keeps them for its gradients.
        """
        setting, workload = self._setting, self._setting.workload
        blueprint, tokens = setting.blueprint, self.tokens(stack)
        staying = 3 * workload.rows * tokens * _INDEX_BYTES
        ending = angles = 0
        if setting.attention == "eager":
            ending += workload.rows * tokens * tokens * setting.width
        elif workload.padded:
            ending += workload.rows * tokens * tokens
        if blueprint.positions == "relative":
            across = len(self._layout.stacks) > 1 and stack is self._layout.stacks[-1]
            pairs = tokens * (tokens + (workload.tokens if across else 0))
            ending += (blueprint.num_heads or 1) * pairs * setting.width
        if blueprint.positions == "rotary":
            query = stack.layers[0].sites["attention.q"]
            angles = 2 * tokens * query.d_out // (blueprint.num_heads or 1) * setting.width
        return ending, staying, angles


class _Walk:
    """One pass over the segments of a placement."""

    def __init__(self, account: Account, ranks: Mapping[str, int]) -> None:
        self._account = account
        self._ranks = ranks
        self._flops: Counter[tuple[str, bool]] = Counter()
        self._live = 0
        self._peak = 0
        # Gradients of an earlier micro-batch are there from the start, and added to in place.
        self._accumulates = account.setting.workload.passes > 1

    def step(self) -> Step:
        stacks = self._account.layout.stacks
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
        account = self._account
        return account.elements(account.tokens(stack)) * account.setting.width

    def _forward(self, stack: Stack, memory: bool | None) -> list[Segment]:
        ending, staying, angles = self._account.shared(stack)
        self._live += ending + staying + angles
        segments = [self._enter(_embedding(self._account, stack, self._ranks))]
        wants = segments[0].wants_gradient
        for layer in stack.layers:
            segment = _layer(self._account, stack, layer, self._ranks, wants, memory)
            segments.append(self._enter(segment))
            wants = segment.wants_gradient
        if stack is not self._account.layout.stacks[-1]:
            segments.append(self._enter(_last_norm(self._account, stack, wants)))
        self._live -= ending if wants else ending + angles
        return segments

    def _enter(self, segment: Segment) -> Segment:
        self._flops.update(segment.flops)
        self._peak = max(self._peak, self._live + segment.forward_peak)
        self._live += segment.saved
        return segment

    def _tail(self, wants: bool, stack: Stack) -> int:
        segment = _tail(self._account, stack, self._ranks, wants)
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


def _own_ranks(layer: Layer, ranks: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(
        (role, ranks[site.path]) for role, site in layer.sites.items() if site.path in ranks
    )


def _layer(
    account: Account,
    stack: Stack,
    layer: Layer,
    ranks: Mapping[str, int],
    wants: bool,
    memory_wants: bool | None,
) -> Segment:
    memory_wants = memory_wants if "cross_attention.o" in layer.sites else None
    key = (stack.name, layer.shape, _own_ranks(layer, ranks), wants, memory_wants)
    tokens = account.tokens(stack)

    def forward(run: Pass, value: Value, memory: Value | None) -> Value:
        return block(run, layer.sites, value, tokens, memory)

    def make() -> Segment:
        return _segment(account, ranks, account.elements(tokens), wants, forward, memory_wants)

    return account.segment(key, make)


def _embedding(account: Account, stack: Stack, ranks: Mapping[str, int]) -> Segment:
    own = tuple((site.path, ranks[site.path]) for site in stack.embeddings if site.path in ranks)
    tokens = account.tokens(stack)

    def forward(run: Pass, _value: Value, _memory: Value | None) -> Value:
        return _embedded(run, account.layout, stack, tokens)

    return account.segment(
        ("embedding", stack.name, own), lambda: _segment(account, ranks, 0, False, forward, None)
    )


def _embedded(run: Pass, layout: Layout, stack: Stack, tokens: int) -> Value:
    """Return the sum of the tables' rows, normed where the blocks norm what they give."""
    total: Value | None = None
    for site in stack.embeddings:
        rows = tokens if layout.is_position(site) else run.rows * tokens
        found = embed(run, site, rows)
        found = op.repeat(run.tape, found, run.rows * tokens // rows)
        total = found if total is None else op.add(run.tape, total, found)
    assert total is not None, "a stack has an embedding"
    if run.blueprint.order == "post":
        total = norm(run, total, run.rows * tokens)
    return op.dropout(run.tape, total, run.blueprint.hidden_dropout)


def _last_norm(account: Account, stack: Stack, wants: bool) -> Segment:
    tokens = account.tokens(stack)

    def forward(run: Pass, value: Value, _memory: Value | None) -> Value:
        value = norm(run, value, run.rows * tokens)
        return op.dropout(run.tape, value, run.blueprint.hidden_dropout)

    return account.segment(
        ("norm", stack.name, wants),
        lambda: _segment(account, {}, account.elements(tokens), wants, forward, None),
    )


def _segment(
    account: Account,
    ranks: Mapping[str, int],
    num_elements: int,
    wants: bool,
    forward: Callable[[Pass, Value, Value | None], Value],
    memory_wants: bool | None,
    *,
    holds_input: bool = True,
) -> Segment:
    """Run a stretch forward and back on a tape of its own.

    The loop over blocks holds the input of each until it has its output; so does this,
    unless told otherwise.
    """
    setting = account.setting
    tape = Tape(on_cpu=setting.on_cpu)
    run = Pass(tape=tape, setting=setting, ranks=ranks)
    value = tape.outside(num_elements, setting.width, wants_gradient=wants, counted=True)
    memory = None
    if memory_wants is not None:
        memory = tape.outside(
            account.elements(setting.workload.tokens),
            setting.width,
            wants_gradient=memory_wants,
            counted=False,
        )
    inputs = (value.node, None if memory is None else memory.node)
    held = [value] if holds_input else []
    given = [value]
    del value
    result = forward(run, given.pop(), memory)
    del memory
    held.clear()
    forward_peak, last, size = tape.peak, result.node, result.num_elements * result.width
    del result
    return _closed(tape, last, size, forward_peak, inputs)


def _closed(
    tape: Tape,
    last: Node | None,
    size: int,
    forward_peak: int,
    inputs: tuple[Node | None, Node | None],
) -> Segment:
    """Run the way back of a stretch and return its account."""
    saved = tape.live
    gives = {}
    if last is not None:
        tape.peak = 0
        gives = tape.backward(last, tape.new(size, 1))
    kept = sum(storage.size for storage in tape.kept)
    sizes = [gives[node].size if node in gives else 0 for node in inputs]
    return Segment(
        flops=tape.flops,
        forward_peak=forward_peak,
        saved=saved if last is not None else 0,
        backward_peak=tape.peak,
        kept=kept,
        wants_gradient=last is not None,
        gives_gradient=sizes[0],
        gives_memory_gradient=sizes[1],
    )


def _tail(account: Account, stack: Stack, ranks: Mapping[str, int], wants: bool) -> Segment:
    """Return the account of what stands behind the last block, loss included, both ways."""
    layout = account.layout
    own = tuple(
        (site.path, ranks[site.path])
        for site in (*layout.transforms, layout.head)
        if site.path in ranks
    )
    num_rows = account.setting.workload.rows * account.tokens(stack)

    def forward(run: Pass, value: Value, _memory: Value | None) -> Value:
        # Only this name refers to the input, so that it goes where the model lets it go.
        value = _before_head(run, layout, value, num_rows)
        return _loss(run, layout, value, num_rows)

    elements = account.elements(account.tokens(stack))
    return account.segment(
        ("tail", own, wants),
        lambda: _segment(
            account, ranks, elements, wants, forward, None, holds_input=bool(layout.transforms)
        ),
    )


def _before_head(run: Pass, layout: Layout, value: Value, num_rows: int) -> Value:
    """Return the head's input: the last norm, or a transform as BERT has it."""
    for site in layout.transforms:
        value = norm(run, activate(run, apply(run, site, value, num_rows)), num_rows)
    if layout.transforms or run.blueprint.order == "post":
        return value
    value = norm(run, value, num_rows)
    if run.blueprint.positions == "relative":
        return op.dropout(run.tape, value, run.blueprint.hidden_dropout)
    return value


def _loss(run: Pass, layout: Layout, value: Value, num_rows: int) -> Value:
    """Return the loss: head, log-softmax, the labels' mean."""
    tape = run.tape
    logits = apply(run, layout.head, value, num_rows)
    if [stack.name for stack in layout.stacks] == ["decoder"]:
        # Causal models take their loss in fp32, others in the base's type.
        logits = op.cast(tape, logits, FLOAT32)
    labels = tape.new(2 * num_rows, _INDEX_BYTES)
    likelihood = op.keeps_result(tape, logits)
    size = logits.num_elements
    width = likelihood.width
    saved = (labels, likelihood.storage)
    node = tape.node((likelihood,), lambda _: (tape.new(size, width),), saved)
    return tape.value(1, width, node)
