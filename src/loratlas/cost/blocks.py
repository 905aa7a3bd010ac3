"""What does one block of a transformer do, from the roles of its sites?

The forward pass is written as transformers' models write it, so that what is alive at each
moment is what is alive there.
"""

from collections.abc import Callable, Mapping

from loratlas.anatomy.sites import Site
from loratlas.cost import operations as op
from loratlas.cost.attention import attention
from loratlas.cost.between import dropped, norm
from loratlas.cost.feed_forward import feed_forward
from loratlas.cost.setting import Pass
from loratlas.cost.tape import Value

Part = Callable[[Value], Value]


def block(
    run: Pass, sites: Mapping[str, Site], value: Value, tokens: int, memory: Value | None
) -> Value:
    """Return the output of a block.

    Args:
        run: the pass.
        sites: the block's sites by role, such as ``attention.q``.
        value: its input.
        tokens: length of a row.
        memory: what an encoder gave, for cross-attention.
    """
    width = next(site.d_out for role, site in sites.items() if role.endswith((".o", ".down")))
    num_rows = run.rows * tokens

    def attend(inner: Value) -> Value:
        result = attention(run, sites, inner, tokens)
        return dropped(run, result) if run.code.drops_attention else result

    def attend_across(inner: Value) -> Value:
        assert memory is not None
        return dropped(run, attention(run, sites, inner, tokens, memory, "cross_attention"))

    def feed(inner: Value) -> Value:
        return dropped(run, feed_forward(run, sites, inner, num_rows))

    inner_parts: list[Part] = []
    if "attention.o" in sites:
        inner_parts.append(attend)
    if "cross_attention.o" in sites:
        inner_parts.append(attend_across)
    inner_parts.append(feed)
    if run.blueprint.order == "parallel":
        value = _side_by_side(run, inner_parts, value, num_rows)
    else:
        for inner_part in inner_parts:
            value = _with_residual(run, inner_part, value, num_rows)
    run.tape.handed_up = None
    assert value.num_elements == num_rows * width
    return value


def _with_residual(run: Pass, inner: Part, value: Value, num_rows: int) -> Value:
    order = run.blueprint.order
    if order == "post":
        return norm(run, op.add(run.tape, inner(value), value), num_rows)
    if order == "after":
        return op.add(run.tape, value, norm(run, inner(value), num_rows))
    result = inner(norm(run, value, num_rows))
    if order == "around":
        result = norm(run, result, num_rows)
    if run.code.scales_results:
        result = op.scale(run.tape, result)
    return op.add(run.tape, value, result)


def _side_by_side(run: Pass, inner_parts: list[Part], value: Value, num_rows: int) -> Value:
    """Add up what the parts make of one input: attn(norm(x)) + mlp(norm(x)) + x."""
    normed = None if run.code.own_norms else norm(run, value, num_rows)
    results = [inner(normed or norm(run, value, num_rows)) for inner in inner_parts]
    total = op.add(run.tape, results[0], results[1])
    del results, normed
    return op.add(run.tape, total, value)
