"""What does one block of a transformer do, from the roles of its sites?

The forward pass is written as transformers' models write it, so that what is alive at each
moment is what is alive there. Products of attention: with query width d_q and value width d_v
over all heads, the scores of T queries against T' keys cost 2 T T' d_q, the weighted sum of
values 2 T T' d_v, however many heads share them (grouped keys are repeated before). The
gradient of the scores for the queries costs as much as the scores, for the keys the same; each
is computed only where an adapter lies before it.
"""

from collections.abc import Callable, Mapping

from loratlas.anatomy.sites import Site
from loratlas.cost import operations as op
from loratlas.cost.maps import apply, apply_parameter
from loratlas.cost.setting import Pass
from loratlas.cost.tape import FLOAT32, Tape, Value

Sites = Mapping[str, Site]
"""The sites of one block by role, such as ``attention.q``."""

Part = Callable[[Value], Value]


def block(run: Pass, sites: Sites, value: Value, tokens: int, memory: Value | None) -> Value:
    """Return the output of a block.

    Args:
        run: the pass.
        sites: the block's sites.
        value: its input.
        tokens: length of a row.
        memory: what an encoder gave, for cross-attention.
    """
    width = next(site.d_out for role, site in sites.items() if role.endswith((".o", ".down")))
    num_rows = run.rows * tokens

    def attend(inner: Value) -> Value:
        return attention(run, sites, inner, tokens)

    def attend_across(inner: Value) -> Value:
        assert memory is not None
        return attention(run, sites, inner, tokens, memory, "cross_attention")

    def feed(inner: Value) -> Value:
        return feed_forward(run, sites, inner, num_rows)

    inner_parts: list[Part] = []
    if "attention.o" in sites:
        inner_parts.append(attend)
    if "cross_attention.o" in sites:
        inner_parts.append(attend_across)
    inner_parts.append(feed)
    order = run.blueprint.order
    if order == "parallel":
        return _side_by_side(run, inner_parts, value, num_rows)
    for inner_part in inner_parts:
        value = _with_residual(run, inner_part, value, num_rows)
    assert value.num_elements == num_rows * width
    return value


def _with_residual(run: Pass, inner: Part, value: Value, num_rows: int) -> Value:
    if run.blueprint.order == "post":
        result = op.add(run.tape, _dropped(run, inner(value)), value)
        return norm(run, result, num_rows)
    return op.add(run.tape, value, _dropped(run, inner(norm(run, value, num_rows))))


def _side_by_side(run: Pass, inner_parts: list[Part], value: Value, num_rows: int) -> Value:
    normed = norm(run, value, num_rows)
    for inner in inner_parts:
        value = op.add(run.tape, value, inner(normed))
    return value


def _dropped(run: Pass, value: Value) -> Value:
    return op.dropout(run.tape, value, run.blueprint.hidden_dropout)


def norm(run: Pass, value: Value, num_rows: int) -> Value:
    """Normalise rows in the model's way."""
    if run.blueprint.norm == "rms_norm":
        return op.rms_norm(run.tape, value, num_rows)
    return op.layer_norm(run.tape, value, num_rows)


def attention(
    run: Pass,
    sites: Sites,
    value: Value,
    tokens: int,
    memory: Value | None = None,
    family: str = "attention",
) -> Value:
    """Return attention's output, over the tokens themselves or over an encoder's."""
    source, source_tokens = value, tokens
    if memory is not None:
        source, source_tokens = memory, run.setting.workload.tokens
    lengths = (tokens, source_tokens)
    own = {
        role.removeprefix(f"{family}."): site
        for role, site in sites.items()
        if role.startswith(f"{family}.")
    }
    query, key, values = _projected(run, own, value, source, lengths)
    inner = (_query_width(own), own["o"].d_in)
    mixed = _mixed(run, query, key, values, lengths, inner, across=memory is not None)
    del query, key, values
    return apply(run, own["o"], mixed, run.rows * tokens)


def _query_width(own: Sites) -> int:
    """Return the width of all heads' queries."""
    return own["q_up"].d_out if "q_up" in own else own["q"].d_out if "q" in own else own["o"].d_in


def _projected(
    run: Pass, own: Sites, value: Value, source: Value, lengths: tuple[int, int]
) -> tuple[Value, Value, Value]:
    """Return queries, keys and values, split into heads."""
    rows, source_rows = run.rows * lengths[0], run.rows * lengths[1]
    if "qkv" in own:
        width = own["o"].d_in
        rest = (own["qkv"].d_out - width) // 2
        fused = apply(run, own["qkv"], value, rows)
        found = op.parts(run.tape, fused, tuple(rows * each for each in (width, rest, rest)))
        return (_heads(run, found[0]), _heads(run, found[1]), _heads(run, found[2]))
    query = _heads(run, _query(run, own, value, rows), normed=True)
    if "kv" in own or "kv_up" in own:
        both = _key_and_value(run, own, source, source_rows)
        pair = op.parts(run.tape, both, (both.num_elements // 2,) * 2)
        return query, _heads(run, pair[0]), _heads(run, pair[1])
    key = _heads(run, apply(run, own["k"], source, source_rows), normed=True)
    values = _heads(run, apply(run, own["v"], source, source_rows))
    if run.blueprint.positions == "rotary":
        rotated = rotate(run, query)
        return rotated, rotate(run, key), values
    return query, key, values


def _query(run: Pass, own: Sites, value: Value, rows: int) -> Value:
    if "q_up" not in own:
        return apply(run, own["q"], value, rows)
    low = norm(run, apply(run, own["q_down"], value, rows), rows)
    return apply(run, own["q_up"], low, rows)


def _key_and_value(run: Pass, own: Sites, source: Value, rows: int) -> Value:
    if "kv" in own:
        return apply(run, own["kv"], source, rows)
    low = norm(run, apply(run, own["kv_down"], source, rows), rows)
    narrow = op.part(run.tape, low, rows * own["kv_up"].d_in)
    return apply(run, own["kv_up"], narrow, rows)


def _heads(run: Pass, value: Value, *, normed: bool = False) -> Value:
    """Look at a value head by head; queries and keys may be normalised on the way.

    A kernel gives gradients in the layout of its inputs, plain steps in another one.
    """
    copied = run.setting.attention == "eager"
    value = op.view(run.tape, value, copied_back=copied)
    if normed and run.blueprint.normed_heads:
        heads = run.blueprint.num_heads or 1
        value = op.rms_norm(run.tape, value, run.rows * heads)
    return value


def rotate(run: Pass, value: Value) -> Value:
    """Turn queries or keys by their position: x cos + rotate_half(x) sin."""
    tape, half = run.tape, value.num_elements // 2
    plain = op.scale(tape, value)
    return op.add(tape, plain, op.scale(tape, _half_turned(tape, value, half)))


def _half_turned(tape: Tape, value: Value, half: int) -> Value:
    first, second = op.part(tape, value, half), op.part(tape, value, half)
    return op.join(tape, (op.scale(tape, second), first))


def _mixed(
    run: Pass,
    query: Value,
    key: Value,
    values: Value,
    lengths: tuple[int, int],
    inner: tuple[int, int],
    *,
    across: bool,
) -> Value:
    """Return the values that the queries attend to, put back into rows."""
    pairs = run.rows * lengths[0] * lengths[1]
    flops = (2 * pairs * inner[0], 2 * pairs * inner[1])
    size = run.rows * lengths[0] * inner[1]
    eager = run.setting.attention == "eager"
    shared = _shared_by(run, key, run.rows * lengths[1] * inner[0])
    repeated = eager or run.setting.workload.padded
    key, values = (op.repeat(run.tape, each, shared if repeated else 1) for each in (key, values))
    # On a CPU the kernel does not take dropout; plain steps are run in its place.
    if eager or (run.blueprint.attention_dropout and run.setting.on_cpu):
        mask = None if eager else _additive_mask(run, pairs, across=across)
        mixed = _plain(run, query, key, values, pairs, flops, size)
        del mask
        return mixed
    return op.attention_kernel(
        run.tape,
        query,
        key,
        values,
        flops=flops,
        num_elements=size,
        statistics=run.rows * lengths[0] * (run.blueprint.num_heads or 1),
        mask=_additive_mask(run, pairs, across=across),
    )


def _shared_by(run: Pass, key: Value, full: int) -> int:
    """Return how many queries share a key."""
    heads, key_heads = run.blueprint.num_heads, run.blueprint.num_key_value_heads
    if heads and key_heads:
        return heads // key_heads
    return max(1, full // max(1, key.num_elements))


def _additive_mask(run: Pass, pairs: int, *, across: bool) -> Value | None:
    """Return the mask that one call makes, None where it makes none.

    Relative positions are a mask of every head. It is made anew in every block, for each row
    apart where rows are padded; across stacks it is zero, and made anew only for padding.
    """
    padded, width = run.setting.workload.padded, run.setting.width
    if run.blueprint.positions != "relative":
        return run.tape.value(pairs, width) if padded else None
    if across and not padded:
        return None
    per_row = pairs * (run.blueprint.num_heads or 1)
    size = per_row if padded else per_row // run.rows
    # The sum of mask and positions has the heads last, and is written anew with them in front.
    heads_last = run.tape.value(size, width)
    mask = run.tape.value(size, width)
    del heads_last
    return mask


def _plain(
    run: Pass,
    query: Value,
    key: Value,
    values: Value,
    pairs: int,
    flops: tuple[int, int],
    size: int,
) -> Value:
    """Attend step by step: scores, mask, softmax, dropout, weighted sum."""
    tape, scores = run.tape, pairs * (run.blueprint.num_heads or 1)

    def stacked(each: Value, copied: bool) -> Value:
        # Heads of several rows are no single stack of matrices until they are copied; keys and
        # values that were repeated have been.
        return op.copy(tape, each) if copied and run.rows > 1 else each

    repeated = run.blueprint.num_heads != run.blueprint.num_key_value_heads
    eager = run.setting.attention == "eager"
    if not eager:  # in the kernel's place queries and keys are scaled, not their products
        query, key, repeated = op.scale(tape, query), op.scale(tape, key), False
    weights = op.product(
        tape,
        stacked(query, True),
        stacked(key, not repeated),
        flops=flops[0],
        num_elements=scores,
        growth="pair",
    )
    if eager:
        weights = op.scale(tape, weights)
        weights = op.add_constant(tape, weights)
    weights = op.cast(tape, op.keeps_result(tape, op.cast(tape, weights, FLOAT32)), query.width)
    weights = op.dropout(tape, weights, run.blueprint.attention_dropout)
    mixed = op.product(
        tape,
        weights,
        stacked(values, not repeated),
        flops=flops[1],
        num_elements=size,
        growth="pair",
    )
    return op.copy(tape, mixed)


def feed_forward(run: Pass, sites: Sites, value: Value, num_rows: int) -> Value:
    """Return the output of the dense feed-forward, of the experts, or of both."""
    if not any(role.startswith("expert.") for role in sites):
        return _dense(run, sites, value, num_rows, "feed_forward")
    result = _experts(run, sites, value, num_rows)
    if "shared_expert.down" in sites:
        result = op.add(run.tape, result, _dense(run, sites, value, num_rows, "shared_expert"))
    return result


def _dense(run: Pass, sites: Sites, value: Value, num_rows: int, family: str) -> Value:
    inner = _inner(run, sites, value, num_rows, family)
    if run.blueprint.positions == "relative":  # T5 drops the inner values too
        inner = _dropped(run, inner)
    return apply(run, sites[f"{family}.down"], inner, num_rows)


def _inner(run: Pass, sites: Sites, value: Value, num_rows: int, family: str) -> Value:
    tape = run.tape
    if f"{family}.gate_up" in sites:
        fused = apply(run, sites[f"{family}.gate_up"], value, num_rows)
        gate, up = op.parts(tape, fused, (fused.num_elements // 2,) * 2)
        return op.multiply(tape, activate(run, gate), up)
    if f"{family}.gate" in sites:
        gate = activate(run, apply(run, sites[f"{family}.gate"], value, num_rows))
        return op.multiply(tape, gate, apply(run, sites[f"{family}.up"], value, num_rows))
    return activate(run, apply(run, sites[f"{family}.up"], value, num_rows))


def activate(run: Pass, value: Value) -> Value:
    """Apply the feed-forward's function."""
    name = run.blueprint.activation
    if name == "gelu_new":
        return op.gelu_in_steps(run.tape, value)
    return (op.keeps_result if name in ("relu", "tanh", "sigmoid") else op.keeps_input)(
        run.tape, value
    )


def _experts(run: Pass, sites: Sites, value: Value, num_rows: int) -> Value:
    """Send each row to its experts; the router's scores weigh what they give back."""
    tape = run.tape
    visits = num_rows * (run.blueprint.experts_per_token or 1)
    weights = None
    if "router" in sites:
        router = sites["router"]
        route = apply_parameter if router.kind == "expert" else apply
        weights = op.keeps_result(tape, route(run, router, value, num_rows))
        weights = op.part(tape, weights, visits)
    chosen = op.repeat(tape, value, run.blueprint.experts_per_token or 1)
    inner = _expert_inner(run, sites, chosen, visits)
    result = apply_parameter(run, sites["expert.down"], inner, visits)
    if weights is not None:
        result = op.multiply(tape, result, weights)
    node = tape.node((result,), lambda g: (g,))
    return tape.value(num_rows * sites["expert.down"].d_out, run.setting.width, node)


def _expert_inner(run: Pass, sites: Sites, chosen: Value, visits: int) -> Value:
    tape = run.tape
    if "expert.gate_up" in sites:
        fused = apply_parameter(run, sites["expert.gate_up"], chosen, visits)
        gate, up = op.parts(tape, fused, (fused.num_elements // 2,) * 2)
        return op.multiply(tape, activate(run, gate), up)
    if "expert.gate" in sites:
        gate = activate(run, apply_parameter(run, sites["expert.gate"], chosen, visits))
        return op.multiply(tape, gate, apply_parameter(run, sites["expert.up"], chosen, visits))
    return activate(run, apply_parameter(run, sites["expert.up"], chosen, visits))
