"""What does a feed-forward do: dense, gated, or split among experts?"""

from collections.abc import Mapping

from loratlas.anatomy.sites import Site
from loratlas.cost import operations as op
from loratlas.cost.between import activate, dropped
from loratlas.cost.maps import apply, apply_parameter
from loratlas.cost.setting import Pass
from loratlas.cost.tape import Value


def feed_forward(run: Pass, sites: Mapping[str, Site], value: Value, num_rows: int) -> Value:
    """Return the output of the dense feed-forward, of the experts, or of both."""
    if not any(role.startswith("expert.") for role in sites):
        return _dense(run, sites, value, num_rows, "feed_forward")
    result = _experts(run, sites, value, num_rows)
    if "shared_expert.down" in sites:
        result = op.add(run.tape, result, _dense(run, sites, value, num_rows, "shared_expert"))
    return result


def _dense(run: Pass, sites: Mapping[str, Site], value: Value, num_rows: int, family: str) -> Value:
    inner = _inner(run, sites, value, num_rows, family)
    if run.blueprint.positions == "relative":  # T5 drops the inner values too
        inner = dropped(run, inner)
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


def _experts(run: Pass, sites: Mapping[str, Site], value: Value, num_rows: int) -> Value:
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


def _expert_inner(run: Pass, sites: Mapping[str, Site], chosen: Value, visits: int) -> Value:
    tape = run.tape
    if "expert.gate_up" in sites:
        fused = apply_parameter(run, sites["expert.gate_up"], chosen, visits)
        gate, up = op.parts(tape, fused, (fused.num_elements // 2,) * 2)
        return op.multiply(tape, activate(run, gate), up)
    if "expert.gate" in sites:
        gate = activate(run, apply_parameter(run, sites["expert.gate"], chosen, visits))
        return op.multiply(tape, gate, apply_parameter(run, sites["expert.up"], chosen, visits))
    return activate(run, apply_parameter(run, sites["expert.up"], chosen, visits))
