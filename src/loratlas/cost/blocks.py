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
        result = op.add(run.tape, dropped(run, inner(value)), value)
        return norm(run, result, num_rows)
    return op.add(run.tape, value, dropped(run, inner(norm(run, value, num_rows))))


def _side_by_side(run: Pass, inner_parts: list[Part], value: Value, num_rows: int) -> Value:
    normed = norm(run, value, num_rows)
    for inner in inner_parts:
        value = op.add(run.tape, value, inner(normed))
    return value
