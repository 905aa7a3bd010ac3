"""What does a feed-forward do: dense, gated, or split among experts?"""

from collections.abc import Mapping

from loratlas.anatomy.sites import Site
from loratlas.cost import operations as op
from loratlas.cost.between import activate
from loratlas.cost.experts import experts
from loratlas.cost.maps import apply
from loratlas.cost.setting import Pass
from loratlas.cost.tape import Value


def feed_forward(run: Pass, sites: Mapping[str, Site], value: Value, num_rows: int) -> Value:
    """Return the output of the dense feed-forward, of the experts, or of both."""
    if not any(role.startswith("expert.") for role in sites):
        return _dense(run, sites, value, num_rows, "feed_forward")
    if "shared_router" in sites:
        return _with_weighed_share(run, sites, value, num_rows)
    result = experts(run, sites, value, num_rows)
    if "shared_expert.down" in sites:
        result = op.add(run.tape, result, _dense(run, sites, value, num_rows, "shared_expert"))
    return result


def _with_weighed_share(run: Pass, sites: Mapping[str, Site], value: Value, num_rows: int) -> Value:
    """Add the shared expert, which has a score of its own for each row (Qwen2-MoE)."""
    tape = run.tape
    shared = _dense(run, sites, value, num_rows, "shared_expert")
    routed = experts(run, sites, value, num_rows)
    score = op.keeps_result(tape, apply(run, sites["shared_router"], value, num_rows))
    return op.add(tape, routed, op.multiply(tape, shared, score))


def _dense(run: Pass, sites: Mapping[str, Site], value: Value, num_rows: int, family: str) -> Value:
    inner = _inner(run, sites, value, num_rows, family)
    inner = op.dropout(run.tape, inner, run.blueprint.inner_dropout)
    return apply(run, sites[f"{family}.down"], inner, num_rows)


def _inner(run: Pass, sites: Mapping[str, Site], value: Value, num_rows: int, family: str) -> Value:
    tape = run.tape
    if f"{family}.gate_up" in sites:
        fused = apply(run, sites[f"{family}.gate_up"], value, num_rows)
        gate, up = op.parts(tape, fused, (fused.num_elements // 2,) * 2)
        return op.multiply(tape, activate(run, gate), up)
    if f"{family}.gate" in sites:
        gate = activate(run, apply(run, sites[f"{family}.gate"], value, num_rows))
        return op.multiply(tape, gate, apply(run, sites[f"{family}.up"], value, num_rows))
    return activate(run, apply(run, sites[f"{family}.up"], value, num_rows))
