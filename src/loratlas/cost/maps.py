"""What does a site cost, frozen or with an adapter on it?

A frozen map of T rows costs 2 T d_in d_out forward and as much for the gradient of its input,
if the input wants one; the gradient of its own weights is never computed. An adapter of rank r
costs 2 T r (d_in + d_out) forward. Backward its two matrices cost the same once for their own
gradients, and once for those of their inputs: 2 T r d_out always, 2 T r d_in only where the
site's input wants a gradient. This is what PEFT's ``lora.Linear`` does step by step.
"""

from loratlas.anatomy.sites import Site
from loratlas.cost import operations as op
from loratlas.cost.setting import Pass
from loratlas.cost.tape import FLOAT32, Node, Value


def apply(run: Pass, site: Site, value: Value, num_rows: int) -> Value:
    """Apply a linear map to rows, with its adapter if it has one."""
    if site.path in run.adapted.bare:
        return _apply_sum(run, site, value, num_rows)
    result = op.frozen_map(run.tape, value, num_rows=num_rows, d_in=site.d_in, d_out=site.d_out)
    rank = run.adapted.ranks.get(site.path)
    if rank is None:
        return result
    value = op.cast(run.tape, value, FLOAT32)
    result = op.add(run.tape, result, _adapter(run, site, value, num_rows, rank))
    return op.cast(run.tape, result, run.setting.width)


def _adapter(run: Pass, site: Site, value: Value, num_rows: int, rank: int) -> Value:
    """Return scale * B A dropout(x)."""
    low = trainable_map(
        run, op.dropout(run.tape, value, run.setting.dropout), num_rows, site.d_in, rank
    )
    return op.scale(run.tape, trainable_map(run, low, num_rows, rank, site.d_out))


def trainable_map(run: Pass, value: Value, num_rows: int, d_in: int, d_out: int) -> Value:
    """Apply one of an adapter's two matrices."""
    return op.product(
        run.tape,
        value,
        run.tape.parameter(d_in * d_out),
        flops=2 * num_rows * d_in * d_out,
        num_elements=num_rows * d_out,
    )


def embed(run: Pass, site: Site, num_rows: int) -> Value:
    """Look rows up in an embedding; its adapter looks up A and multiplies by B."""
    width = run.setting.width
    found = run.tape.value(num_rows * site.d_out, width)
    rank = run.adapted.ranks.get(site.path)
    if rank is None:
        return found
    table = run.tape.parameter(site.d_in * rank)
    looked_up = run.tape.value(num_rows * rank, FLOAT32, _lookup(run, table))
    low = trainable_map(run, looked_up, num_rows, rank, site.d_out)
    return op.cast(run.tape, op.add(run.tape, found, op.scale(run.tape, low)), width)


def _lookup(run: Pass, table: Value) -> Node | None:
    size = table.num_elements
    return run.tape.node((table,), lambda _: (run.tape.new(size, FLOAT32),))


def expert_weights(run: Pass, site: Site) -> Value | None:
    """Return the weights of an adapted stack of experts, None where it is frozen.

    PEFT adds B A to the weights of all experts: 2 E r d_in d_out, twice as much for the
    gradients of A and B, whichever experts the tokens go to. PyTorch's ``parametrize`` calls
    the sum once more when PEFT registers it, at every pass (PEFT 0.21.2, torch 2.13).
    """
    if site.path not in run.adapted.ranks:
        return None
    tape, experts = run.tape, site.num_experts or 1
    tape.count(2 * experts * run.adapted.ranks[site.path] * site.d_in * site.d_out, "fixed")
    tape.new(experts * site.d_in * site.d_out, run.setting.width)  # the first sum, not kept
    return _low_rank_weights(run, site)


def _low_rank_weights(run: Pass, site: Site) -> Value:
    tape, rank, experts = run.tape, run.adapted.ranks[site.path], site.num_experts or 1
    width = run.setting.width
    return op.product(
        tape,
        op.cast(tape, tape.parameter(experts * rank * site.d_in), width),
        op.cast(tape, tape.parameter(experts * rank * site.d_out), width),
        flops=2 * experts * rank * site.d_in * site.d_out,
        num_elements=experts * site.d_in * site.d_out,
        growth="fixed",
    )


def _apply_sum(run: Pass, site: Site, value: Value, num_rows: int) -> Value:
    """Multiply rows by W + scale * B A, written out: the weights get a gradient of their own."""
    tape = run.tape
    low_rank = op.scale(tape, _low_rank_weights(run, site))
    weights = op.add_constant(tape, low_rank)
    result = op.product(
        tape,
        value,
        weights,
        flops=2 * num_rows * site.d_in * site.d_out,
        num_elements=num_rows * site.d_out,
    )
    del low_rank  # PEFT holds it while the map runs
    return result
