"""What does attention make of its input: queries, keys, values, what they give, its output?"""

from collections.abc import Mapping

from loratlas.anatomy.sites import Site
from loratlas.cost import operations as op
from loratlas.cost.between import norm
from loratlas.cost.maps import apply
from loratlas.cost.mixing import mix
from loratlas.cost.setting import Pass
from loratlas.cost.tape import Tape, Value

Sites = Mapping[str, Site]
"""Sites by role: ``attention.q`` among a block's, ``q`` among one attention's own."""


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
    mixed = mix(run, query, key, values, lengths, inner, across=memory is not None)
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
        query, key, values = _cut(run, apply(run, own["qkv"], value, rows), rows, (width, rest))
        return _turned(run, _heads(run, query), _heads(run, key), _heads(run, values))
    query = _heads(run, _query(run, own, value, rows), normed=True)
    if "kv" in own or "kv_up" in own:
        both = _key_and_value(run, own, source, source_rows)
        pair = op.parts(run.tape, both, (both.num_elements // 2,) * 2)
        return query, _heads(run, pair[0]), _heads(run, pair[1])
    key = _heads(run, apply(run, own["k"], source, source_rows), normed=True)
    values = _heads(run, apply(run, own["v"], source, source_rows))
    return _turned(run, query, key, values)


def _cut(run: Pass, fused: Value, rows: int, widths: tuple[int, int]) -> tuple[Value, ...]:
    """Return queries, keys and values out of one map's result."""
    sizes = tuple(rows * width for width in (widths[0], widths[1], widths[1]))
    if run.code.fused == "slices":
        return tuple(op.part(run.tape, fused, size) for size in sizes)
    return op.parts(run.tape, fused, sizes)


def _turned(run: Pass, query: Value, key: Value, values: Value) -> tuple[Value, Value, Value]:
    """Return queries and keys that know where they stand, if attention is what tells them."""
    if run.code.positions != "rotary":
        return query, key, values
    rotated = rotate(run, query)
    return rotated, rotate(run, key), values


def _query(run: Pass, own: Sites, value: Value, rows: int) -> Value:
    if "q_up" not in own:
        query = apply(run, own["q"], value, rows)
        return op.scale(run.tape, query) if run.code.scales_query else query
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
    copied = run.setting.attends_in_steps
    value = op.view(run.tape, value, copied_back=copied)
    if normed and run.code.normed_heads:
        heads = run.blueprint.num_heads or 1
        value = op.rms_norm(run.tape, value, run.rows * heads)
    return value


def rotate(run: Pass, value: Value) -> Value:
    """Turn queries or keys by their position, or the first part of each head."""
    if not run.blueprint.rotary_share:
        return _rotated(run.tape, value)
    turned = round(value.num_elements * run.blueprint.rotary_share)
    first = op.part(run.tape, value, turned)
    rest = op.part(run.tape, value, value.num_elements - turned)
    return op.join(run.tape, (_rotated(run.tape, first), rest))


def _rotated(tape: Tape, value: Value) -> Value:
    """Return x cos + rotate_half(x) sin."""
    half = value.num_elements // 2
    plain = op.scale(tape, value)
    return op.add(tape, plain, op.scale(tape, _half_turned(tape, value, half)))


def _half_turned(tape: Tape, value: Value, half: int) -> Value:
    first, second = op.part(tape, value, half), op.part(tape, value, half)
    return op.join(tape, (op.scale(tape, second), first))
