"""Ranks by layer and role in the terminal."""

import io
from dataclasses import replace

from rich.console import Console

import anatomies
from loratlas.allocate.allocation import Allocation
from loratlas.allocate.budget import Budget
from loratlas.placement.placement import Adapter, Placement
from loratlas.report.allocations import allocation_summary, rank_table


def drawn(anatomy, ranks):
    adapters = tuple(
        Adapter(site=anatomy.by_path[path], rank=rank, alpha=1.0) for path, rank in ranks.items()
    )
    placement = Placement(anatomy=anatomy, adapters=adapters, scaling="constant")
    console = Console(file=io.StringIO(), width=80)
    console.print(rank_table(placement))
    return [line.split() for line in console.file.getvalue().splitlines() if line.strip()]


def test_rows_are_layers_and_columns_the_roles_that_have_ranks():
    t5 = anatomies.t5(encoder=2, decoder=1)
    ranks = {
        "encoder.block.0.layer.0.SelfAttention.q": 4,
        "encoder.block.1.layer.0.SelfAttention.v": 16,
        "encoder.block.1.layer.1.DenseReluDense.wo": 2,
        "lm_head": 8,
    }
    assert drawn(t5, ranks) == [
        ["attention", "feed_forward", "head"],
        ["layer", ".q", ".v", ".down"],
        ["─" * 44],
        ["encoder", "0", "4", "·", "·"],
        ["encoder", "1", "·", "16", "2"],
        ["outside", "8"],
    ]


def test_sites_of_one_layer_and_role_are_counted():
    experts = [
        anatomies.site(f"e.{n}.up", "expert.up", 8, 8, stack="decoder", layer=0) for n in range(4)
    ]
    model = replace(anatomies.nested(), sites=tuple(experts), stacks={"decoder": 1})
    mixed = {"e.0.up": 4, "e.2.up": 4, "e.3.up": 1}
    assert drawn(model, mixed)[-1] == ["decoder", "0", "4", "(2),", "·,", "1"]
    assert drawn(model, dict.fromkeys(model.by_path, 4))[-1] == ["decoder", "0", "4"]


def summary(method, bound):
    nested = anatomies.nested()
    adapter = Adapter(site=nested.sites[0], rank=2, alpha=1.0)
    return allocation_summary(
        Allocation(
            placement=Placement(anatomy=nested, adapters=(adapter,), scaling="constant"),
            budget=Budget(amount=40),
            used=32,
            utility=3.0,
            bound=bound,
            shadow_price=0.25,
            method=method,
            scorer="hand",
        )
    )


def test_what_is_proven_is_said():
    assert summary("exact", 3.0) == (
        "scores by hand, exact: 32 of 40 parameters (80.00%), utility 3\n"
        "gap 0%, so no other is better; shadow price 0.25 per parameter"
    )
    assert summary("greedy", 4.0).endswith("\ngap 25%; shadow price 0.25 per parameter")


def test_the_proportional_rule_is_held_against_placements_of_its_own_size():
    among = "among placements that take as much"
    assert f"\ngap 0% {among}, so none of them is better; sh" in summary("proportional", 3.0)
    assert f"\ngap 25% {among}; sh" in summary("proportional", 4.0)
