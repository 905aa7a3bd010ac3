"""What does it take to mix values by the scores of queries against keys?

With query width d_q and value width d_v over all heads, the scores of T queries against T' keys
cost 2 T T' d_q, the weighted sum of values 2 T T' d_v, however many heads share them (grouped
keys are repeated before). The gradient of the scores for the queries costs as much as the
scores, for the keys the same; each is computed only where an adapter lies before it.
"""

from loratlas.cost import operations as op
from loratlas.cost.setting import Pass
from loratlas.cost.tape import FLOAT32, Value


def mix(
    run: Pass,
    query: Value,
    key: Value,
    values: Value,
    lengths: tuple[int, int],
    inner: tuple[int, int],
    *,
    across: bool,
) -> Value:
    """Return the values that the queries attend to, put back into rows.

    `lengths` are the tokens of a row of queries and of one of keys, `inner` the widths of queries
    and values over all heads; `across` says whether keys and values are an encoder's.
    """
    pairs = run.rows * lengths[0] * lengths[1]
    flops = (2 * pairs * inner[0], 2 * pairs * inner[1])
    size = run.rows * lengths[0] * inner[1]
    eager = run.setting.attends_in_steps
    shared = _shared_by(run, key, run.rows * lengths[1] * inner[0])
    repeated = eager or run.setting.workload.padded
    key, values = (op.repeat(run.tape, each, shared if repeated else 1) for each in (key, values))
    # On a CPU the kernel does not take dropout; plain steps are run in its place.
    if eager or (run.blueprint.attention_dropout and run.setting.on_cpu):
        mask = None if eager else _additive_mask(run, pairs, across=across)
        mixed = _plain(run, query, key, values, pairs, flops, size)
        del mask
        return mixed
    mixed = op.attention_kernel(
        run.tape,
        query,
        key,
        values,
        flops=flops,
        num_elements=size,
        statistics=run.rows * lengths[0] * (run.blueprint.num_heads or 1),
        mask=_additive_mask(run, pairs, across=across),
    )
    # The result is laid out as the queries are: joined ones stand head by head, not row by row.
    return op.copy(run.tape, mixed) if run.blueprint.rotary_share else mixed


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
    if run.code.positions != "relative":
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
    tape = run.tape
    repeated = run.blueprint.num_heads != run.blueprint.num_key_value_heads
    if not run.setting.attends_in_steps:
        # In the kernel's place queries and keys are scaled, not their products.
        query, key, repeated = op.scale(tape, query), op.scale(tape, key), False
    weights = _weights(run, query, key, pairs, flops[0], repeated=repeated)
    weights = op.dropout(tape, weights, run.blueprint.attention_dropout)
    if run.setting.attends_in_steps:
        tape.handed_up = weights.storage
    mixed = op.product(
        tape,
        weights,
        _stacked(run, values, not repeated),
        flops=flops[1],
        num_elements=size,
        growth="pair",
    )
    return op.copy(tape, mixed)


def _weights(
    run: Pass, query: Value, key: Value, pairs: int, flops: int, *, repeated: bool
) -> Value:
    """Return the softmax of the scores, taken in fp32."""
    tape = run.tape
    weights = op.product(
        tape,
        _stacked(run, query, True),
        _stacked(run, key, not repeated),
        flops=flops,
        num_elements=pairs * (run.blueprint.num_heads or 1),
        growth="pair",
    )
    if run.setting.attends_in_steps:
        weights = op.scale(tape, weights)
        if run.blueprint.attention_cap:
            weights = op.capped(tape, weights)
        weights = op.add_constant(tape, weights)
    return op.cast(tape, op.keeps_result(tape, op.cast(tape, weights, FLOAT32)), query.width)


def _stacked(run: Pass, each: Value, copied: bool) -> Value:
    # Heads of several rows are no single stack of matrices until they are copied; keys and
    # values that were repeated have been.
    return op.copy(run.tape, each) if copied and run.rows > 1 else each
