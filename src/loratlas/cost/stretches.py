"""Which stretches is a pass made of: embedding, block, an encoder's last norm, head and loss?"""

from loratlas.cost import operations as op
from loratlas.cost.between import activate, dropped, norm
from loratlas.cost.blocks import block
from loratlas.cost.book import Book
from loratlas.cost.layout import Layer, Layout, Stack
from loratlas.cost.maps import apply, embed
from loratlas.cost.segment import Segment, Source, Stretch
from loratlas.cost.setting import Adapted, Pass
from loratlas.cost.tape import FLOAT32, INDEX, Value


def embedding(book: Book, stack: Stack, adapted: Adapted) -> Segment:
    """Return the account of what stands before a stack's first block."""
    own = adapted.among(stack.embeddings)
    tokens = book.tokens(stack)

    def forward(run: Pass, _value: Value, _memory: Value | None) -> Value:
        return _embedded(run, book.layout, stack, tokens)

    source = Source(num_elements=0, wants_gradient=False)
    return book.segment(
        ("embedding", stack.name, own),
        Stretch(setting=book.setting, adapted=adapted, forward=forward, source=source),
    )


def _embedded(run: Pass, layout: Layout, stack: Stack, tokens: int) -> Value:
    """Return the sum of the tables' rows, normed where the blocks norm what they give."""
    total: Value | None = None
    for site in stack.embeddings:
        rows = tokens if layout.is_position(site) else run.rows * tokens
        found = embed(run, site, rows)
        if run.code.scales_embeddings:
            found = op.scale(run.tape, found)
        if run.setting.input_gradients and site.d_in == layout.vocabulary:
            found = run.tape.asked_for(found, held=len(stack.embeddings) > 1)
        found = op.repeat(run.tape, found, run.rows * tokens // rows)
        total = found if total is None else op.add(run.tape, total, found)
    assert total is not None, "a stack has an embedding"
    if run.code.normed_embeddings:
        total = norm(run, total, run.rows * tokens)
    total = dropped(run, total) if run.code.drops_embeddings else total
    return total if layout.entry is None else apply(run, layout.entry, total, run.rows * tokens)


def layer_block(
    book: Book,
    stack: Stack,
    layer: Layer,
    adapted: Adapted,
    wants: bool,
    memory_wants: bool | None,
) -> Segment:
    """Return the account of one block.

    Args:
        book: the segments known so far.
        stack: the block's stack.
        layer: the block.
        adapted: where the adapters are.
        wants: whether its input wants a gradient.
        memory_wants: whether what an encoder gave wants one; None without an encoder.
    """
    memory_wants = memory_wants if "cross_attention.o" in layer.sites else None
    key = (stack.name, layer.shape, adapted.among(layer.sites.values()), wants, memory_wants)
    tokens = book.tokens(stack)

    def forward(run: Pass, value: Value, memory: Value | None) -> Value:
        return block(run, layer.sites, value, tokens, memory)

    source = _source(book, tokens, wants)
    memory_source = None
    if memory_wants is not None:
        memory_source = _source(book, book.setting.workload.tokens, memory_wants)
    stretch = Stretch(
        setting=book.setting,
        adapted=adapted,
        forward=forward,
        source=source,
        memory_source=memory_source,
    )
    return book.segment(key, stretch, checkpointed=book.setting.checkpointing)


def _source(book: Book, tokens: int, wants: bool) -> Source:
    """Return what runs between blocks."""
    return Source(num_elements=book.elements(tokens), wants_gradient=wants)


def last_norm(book: Book, stack: Stack, wants: bool) -> Segment:
    """Return the account of the norm behind an encoder's last block."""
    tokens = book.tokens(stack)

    def forward(run: Pass, value: Value, _memory: Value | None) -> Value:
        return normed_result(run, value, run.rows * tokens)

    source = _source(book, tokens, wants)
    stretch = Stretch(
        setting=book.setting, adapted=Adapted(ranks={}), forward=forward, source=source
    )
    return book.segment(("norm", stack.name, wants), stretch)


def tail(book: Book, stack: Stack, adapted: Adapted, wants: bool) -> Segment:
    """Return the account of what stands behind the last block, loss included, both ways."""
    layout = book.layout
    own = adapted.among((*layout.transforms, layout.head))
    num_rows = book.setting.workload.rows * book.tokens(stack)

    def forward(run: Pass, value: Value, _memory: Value | None) -> Value:
        # Only this name refers to the input, so that it goes where the model lets it go.
        value = _before_head(run, layout, value, num_rows)
        return _loss(run, layout, value, num_rows)

    source = _source(book, book.tokens(stack), wants)
    stretch = Stretch(
        setting=book.setting,
        adapted=adapted,
        forward=forward,
        source=source,
        holds_input=bool(layout.transforms),
    )
    return book.segment(("tail", own, wants), stretch)


def _before_head(run: Pass, layout: Layout, value: Value, num_rows: int) -> Value:
    """Return the head's input: the last norm, or a transform as BERT has it."""
    for site in layout.transforms:
        value = norm(run, activate(run, apply(run, site, value, num_rows)), num_rows)
    if layout.transforms or not run.code.normed_result:
        return value
    return normed_result(run, value, num_rows)


def normed_result(run: Pass, value: Value, num_rows: int) -> Value:
    """Return the norm behind a stack's last block; T5 drops it too."""
    value = norm(run, value, num_rows)
    return dropped(run, value) if run.code.positions == "relative" else value


def _loss(run: Pass, layout: Layout, value: Value, num_rows: int) -> Value:
    """Return the loss: head, log-softmax, the labels' mean."""
    tape = run.tape
    logits = apply(run, layout.head, value, num_rows)
    if run.code.scales_logits:
        logits = op.scale(tape, logits)
    if run.blueprint.logit_cap:
        logits = op.capped(tape, logits)
    if [stack.name for stack in layout.stacks] == ["decoder"]:
        # Causal models take their loss in fp32, others in the base's type.
        logits = op.cast(tape, logits, FLOAT32)
    labels = tape.new(2 * num_rows, INDEX)
    likelihood = op.keeps_result(tape, logits)
    size = logits.num_elements
    width = likelihood.width
    saved = (labels, likelihood.storage)
    node = tape.node((likelihood,), lambda _: (tape.new(size, width),), saved)
    return tape.value(1, width, node)
