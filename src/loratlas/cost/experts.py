"""What does a routed feed-forward do: the router's scores, the rows of each expert, their sum?

Two of the ways in which transformers runs its stacked experts are written out. ``grouped_mm``,
its default, sorts all visits by expert and multiplies them in one call. ``eager`` goes over the
experts one by one.

What autograd keeps is the same whichever way the rows go, for every visit is one row somewhere.
Two things depend on the rows: under ``eager`` the largest expert sets the temporaries, and each
expert that is visited makes a gradient of the whole stack of an adapted parameter, two of which
are there at once. The account takes every expert to be visited by as many rows as any other.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from loratlas.anatomy.sites import Site
from loratlas.cost import operations as op
from loratlas.cost.between import activate
from loratlas.cost.maps import apply, expert_weights
from loratlas.cost.setting import Pass
from loratlas.cost.tape import FLOAT32, INDEX, Value

Multiply = Callable[[str, Value, int], Value]
"""The product of rows with an expert parameter: its part, such as ``down``, rows, their count."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Routed:
    """The experts of one block, what enters them, and the weights of adapted parameters."""

    run: Pass
    sites: Mapping[str, Site]
    value: Value
    scores: Value | None
    num_rows: int
    weights: Mapping[str, Value | None]

    @property
    def per_token(self) -> int:
        """Experts that a token visits."""
        return self.run.blueprint.experts_per_token or 1

    @property
    def visits(self) -> int:
        """Rows over all experts."""
        return self.num_rows * self.per_token

    @property
    def num_experts(self) -> int:
        """Experts of the block."""
        return self.sites["expert.down"].num_experts or 1


def experts(run: Pass, sites: Mapping[str, Site], value: Value, num_rows: int) -> Value:
    """Send each row to its experts; the router's scores weigh what they give back."""
    scores = _scores(run, sites, value, num_rows)
    routed = _Routed(
        run=run,
        sites=sites,
        value=value,
        scores=scores,
        num_rows=num_rows,
        weights=_adapted_weights(run, sites),
    )
    return (_one_by_one if run.setting.experts == "eager" else _grouped)(routed)


def _scores(run: Pass, sites: Mapping[str, Site], value: Value, num_rows: int) -> Value | None:
    """Return the scores of the chosen experts: softmax in fp32, the largest, their share."""
    if "router" not in sites:
        return None
    tape, router = run.tape, sites["router"]
    visits = num_rows * (run.blueprint.experts_per_token or 1)
    logits = apply(run, router, value, num_rows)
    chances = op.keeps_result(tape, op.cast(tape, logits, FLOAT32))
    chosen = op.gather(tape, chances, visits, tape.new(visits, INDEX))
    return op.cast(tape, chosen, value.width)


def _adapted_weights(run: Pass, sites: Mapping[str, Site]) -> dict[str, Value | None]:
    """Return the weights of adapted parameters, which stay as long as the experts run."""
    found = {}
    for role, site in sites.items():
        if role.startswith("expert."):
            found[role.removeprefix("expert.")] = expert_weights(run, site)
    return found


def _inner(routed: _Routed, multiply: Multiply, rows: Value, num_rows: int) -> Value:
    run, parts = routed.run, routed.weights
    if "gate_up" in parts:
        fused = multiply("gate_up", rows, num_rows)
        gate, up = op.parts(run.tape, fused, (fused.num_elements // 2,) * 2)
        return op.multiply(run.tape, activate(run, gate), up)
    if "gate" in parts:
        gate = activate(run, multiply("gate", rows, num_rows))
        return op.multiply(run.tape, gate, multiply("up", rows, num_rows))
    return activate(run, multiply("up", rows, num_rows))


def _grouped(routed: _Routed) -> Value:
    """Multiply all visits in one call, sorted by expert, and sum those of each row."""
    run, visits = routed.run, routed.visits
    tape, width = run.tape, routed.sites["expert.down"].d_out
    order = tape.new(visits, INDEX)
    rows_of = tape.new(visits, INDEX)
    chosen = op.gather(tape, routed.value, visits * (routed.value.num_elements // routed.num_rows),
                       rows_of)  # fmt: skip
    scores = None if routed.scores is None else op.gather(tape, routed.scores, visits, order)

    def multiply(part: str, rows: Value, num_rows: int) -> Value:
        return _product(routed, part, rows, num_rows, routed.weights[part])

    result = multiply("down", _inner(routed, multiply, chosen, visits), visits)
    if scores is not None:
        result = op.multiply(tape, result, scores)
    back = tape.new(visits, INDEX)
    result = op.gather(tape, result, visits * width, back)
    return op.sum_of(tape, result, routed.num_rows * width)


def _one_by_one(routed: _Routed) -> Value:
    """Go over the experts; each adds what it gives to the rows it was visited by."""
    run, tape = routed.run, routed.run.tape
    width = routed.sites["expert.down"].d_out
    total = tape.value(routed.num_rows * width, run.setting.width)
    chosen_by = tape.new(routed.visits * (routed.num_experts + 1), INDEX)
    for num_rows in _shares(routed.visits, routed.num_experts):
        rows_of = tape.new(2 * num_rows, INDEX)
        d_in = routed.value.num_elements // routed.num_rows
        current = op.gather(tape, routed.value, num_rows * d_in, rows_of)
        current = _one_expert(routed, current, num_rows)
        if routed.scores is not None:
            scores = op.gather(tape, routed.scores, num_rows, rows_of)
            current = op.multiply(tape, current, scores)
        total = op.add_rows(tape, total, current, rows_of)
    del chosen_by
    return total


def _one_expert(routed: _Routed, rows: Value, num_rows: int) -> Value:
    def multiply(part: str, rows: Value, num_rows: int) -> Value:
        site, stack = routed.sites[f"expert.{part}"], routed.weights[part]
        own = None if stack is None else op.part(routed.run.tape, stack, site.d_in * site.d_out)
        return _product(routed, part, rows, num_rows, own)

    return multiply("down", _inner(routed, multiply, rows, num_rows), num_rows)


def _product(
    routed: _Routed, part: str, rows: Value, num_rows: int, weights: Value | None
) -> Value:
    site, tape = routed.sites[f"expert.{part}"], routed.run.tape
    if weights is None:
        return op.frozen_map(tape, rows, num_rows=num_rows, d_in=site.d_in, d_out=site.d_out)
    return op.product(
        tape,
        rows,
        weights,
        flops=2 * num_rows * site.d_in * site.d_out,
        num_elements=num_rows * site.d_out,
    )


def _shares(visits: int, num_experts: int) -> Iterator[int]:
    """Yield the rows of each expert that is visited, as equal as they can be."""
    for number in range(min(visits, num_experts)):
        yield (visits + number) // num_experts if visits >= num_experts else 1
