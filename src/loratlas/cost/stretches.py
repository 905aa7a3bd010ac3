"""Which stretches is a pass made of: embedding, block, an encoder's last norm, head and loss?"""

from collections.abc import Mapping

from loratlas.cost import operations as op
from loratlas.cost.between import activate, norm
from loratlas.cost.blocks import block
from loratlas.cost.book import INDEX_BYTES, Book
from loratlas.cost.layout import Layer, Layout, Stack
from loratlas.cost.maps import apply, embed
from loratlas.cost.segment import Segment, Source, run_segment
from loratlas.cost.setting import Pass
from loratlas.cost.tape import FLOAT32, Value


def embedding(book: Book, stack: Stack, ranks: Mapping[str, int]) -> Segment:
    """Return the account of what stands before a stack's first block."""
    own = tuple((site.path, ranks[site.path]) for site in stack.embeddings if site.path in ranks)
    tokens = book.tokens(stack)

    def forward(run: Pass, _value: Value, _memory: Value | None) -> Value:
        return _embedded(run, book.layout, stack, tokens)

    source = Source(num_elements=0, wants_gradient=False)
    return book.segment(
        ("embedding", stack.name, own), lambda: run_segment(book.setting, ranks, forward, source)
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


def layer_block(
    book: Book,
    stack: Stack,
    layer: Layer,
    ranks: Mapping[str, int],
    wants: bool,
    memory_wants: bool | None,
) -> Segment:
    """Return the account of one block.

    Args:
        book: the segments known so far.
        stack: the block's stack.
        layer: the block.
        ranks: the rank of every adapted site, by path.
        wants: whether its input wants a gradient.
        memory_wants: whether what an encoder gave wants one; None without an encoder.
    """
    memory_wants = memory_wants if "cross_attention.o" in layer.sites else None
    key = (stack.name, layer.shape, _own_ranks(layer, ranks), wants, memory_wants)
    tokens = book.tokens(stack)

    def forward(run: Pass, value: Value, memory: Value | None) -> Value:
        return block(run, layer.sites, value, tokens, memory)

    source = _source(book, tokens, wants)
    memory_source = None
    if memory_wants is not None:
        memory_source = _source(book, book.setting.workload.tokens, memory_wants)
    return book.segment(
        key, lambda: run_segment(book.setting, ranks, forward, source, memory_source)
    )


def _source(book: Book, tokens: int, wants: bool) -> Source:
    """Return what runs between blocks."""
    return Source(num_elements=book.elements(tokens), wants_gradient=wants)


def _own_ranks(layer: Layer, ranks: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(
        (role, ranks[site.path]) for role, site in layer.sites.items() if site.path in ranks
    )


def last_norm(book: Book, stack: Stack, wants: bool) -> Segment:
    """Return the account of the norm behind an encoder's last block."""
    tokens = book.tokens(stack)

    def forward(run: Pass, value: Value, _memory: Value | None) -> Value:
        value = norm(run, value, run.rows * tokens)
        return op.dropout(run.tape, value, run.blueprint.hidden_dropout)

    source = _source(book, tokens, wants)
    return book.segment(
        ("norm", stack.name, wants), lambda: run_segment(book.setting, {}, forward, source)
    )


def tail(book: Book, stack: Stack, ranks: Mapping[str, int], wants: bool) -> Segment:
    """Return the account of what stands behind the last block, loss included, both ways."""
    layout = book.layout
    own = tuple(
        (site.path, ranks[site.path])
        for site in (*layout.transforms, layout.head)
        if site.path in ranks
    )
    num_rows = book.setting.workload.rows * book.tokens(stack)

    def forward(run: Pass, value: Value, _memory: Value | None) -> Value:
        # Only this name refers to the input, so that it goes where the model lets it go.
        value = _before_head(run, layout, value, num_rows)
        return _loss(run, layout, value, num_rows)

    source = _source(book, book.tokens(stack), wants)
    return book.segment(
        ("tail", own, wants),
        lambda: run_segment(
            book.setting, ranks, forward, source, holds_input=bool(layout.transforms)
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
    labels = tape.new(2 * num_rows, INDEX_BYTES)
    likelihood = op.keeps_result(tape, logits)
    size = logits.num_elements
    width = likelihood.width
    saved = (labels, likelihood.storage)
    node = tape.node((likelihood,), lambda _: (tape.new(size, width),), saved)
    return tape.value(1, width, node)
