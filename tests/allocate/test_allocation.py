"""What an allocation is: alphas, plain data, constraints kept, and requests that are refused."""

import json
from dataclasses import replace

import pytest
from score_tables import SMALL, path, ranks, solve, table

import anatomies
from loratlas.allocate.budget import BYTES_PER_PARAMETER, Budget
from loratlas.allocate.constraints import Cap, Constraints, Tie, rule_of_roles
from loratlas.cost.parameters import adapter_bytes
from loratlas.errors import PlacementError, RuleError
from loratlas.placement.peft_config import config_fields
from loratlas.placement.placement import LoraSpec, Placement, place

PARTS = ("q", "k", "v", "o", "gate", "up", "down")
EVERY = {path(part, layer): 1.0 + n for layer in range(2) for n, part in enumerate(PARTS)}
QKV = Tie(rule="attention.q | attention.k | attention.v")


def test_alphas_follow_the_scaling_rule():
    scores = table(None, curves={path("up"): (9.0, 8.0, 7.0), path("down"): (5.0, 1.0)})
    for scaling, alphas in (("constant", [6.0, 2.0]), ("alpha/r", [8, 8]), ("rslora", [8, 8])):
        lora = LoraSpec(rank=4, alpha=8, scaling=scaling)
        found = solve(scores, 4, "ranks", lora=lora)
        assert [(a.rank, a.alpha) for a in found.placement.adapters] == [
            (3, alphas[0]),
            (1, alphas[1]),
        ]
        assert found.placement.scaling == scaling
    fields = config_fields(solve(scores, 4, "ranks").placement)
    assert (fields["r"], fields["lora_alpha"]) == (1, 2)
    assert fields["rank_pattern"] == {r"^model\.layers\.0\.mlp\.up_proj": 3}
    assert fields["alpha_pattern"] == {r"^model\.layers\.0\.mlp\.up_proj": 6}


def test_peft_takes_the_ranks_and_alphas():
    scores = table(None, curves={path("up"): (9.0, 8.0, 7.0), path("down"): (5.0, 1.0)})
    config = solve(scores, 4, "ranks").placement.to_peft()
    assert config.alpha_pattern == {r"^model\.layers\.0\.mlp\.up_proj": 6}
    assert config.lora_alpha / config.r == 2 == 6 / 3


def test_the_plain_data_are_a_saved_placement(tmp_path):
    found = solve(table(EVERY), 500)
    plain = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert {key: plain[key] for key in ("method", "scorer", "used", "gap", "notes")} == {
        "method": "exact",
        "scorer": "hand",
        "used": plain["trainable_parameters"],
        "gap": 0,
        "notes": [],
    }
    assert plain["budget"] == {"amount": 500, "unit": "parameters"}
    assert plain["bound"] == plain["utility"] > 0
    assert plain["shadow_price"] > 0
    assert Placement.from_json(plain, SMALL) == found.placement
    (tmp_path / "found.json").write_text(json.dumps(plain))
    rule = 'file("found.json")'
    assert place(SMALL, rule, rank=4, alpha=8, root=tmp_path) == found.placement


def test_units_of_a_budget():
    site = SMALL.by_path[path("up")]
    costs = {unit: Budget(amount=1, unit=unit).per_rank(site) for unit in ("parameters", "ranks")}
    assert costs == {"parameters": 20, "ranks": 1}
    assert Budget(amount=1, unit="bytes").per_rank(site) == adapter_bytes(20)
    assert adapter_bytes(1) == BYTES_PER_PARAMETER
    by_bytes, by_parameters = solve(table(EVERY), 2003, "bytes"), solve(table(EVERY), 500)
    assert by_bytes.placement == by_parameters.placement
    assert by_bytes.used == 4 * by_parameters.used
    assert solve(table(EVERY), 9, "ranks").used == 9
    assert str(Budget(amount=2_000_000)) == "2,000,000 parameters"


def test_experts_cost_a_rank_for_each():
    moe = anatomies.mixtral()
    paths = [f"model.layers.0.{name}" for name in ("self_attn.q_proj", "mlp.experts.down_proj")]
    found = solve(table(dict.fromkeys(paths, 1.0), moe), 1000, anatomy=moe, max_rank=3)
    # 64 parameters a rank for q; 80 for each of the 4 experts.
    assert found.used == sum(
        a.rank * {4: 320, None: 64}[a.site.num_experts] for a in found.placement.adapters
    )
    assert ranks(found) == {paths[0]: 3, paths[1]: 2}


def test_ties_of_a_layer_and_of_all():
    found = ranks(solve(table(EVERY), 900, ties=(QKV,)))
    for layer in range(2):
        assert len({found.get(path(part, layer), 0) for part in "qkv"}) == 1
    whole = ranks(solve(table(EVERY), 900, ties=(Tie(rule="feed_forward", across_layers=True),)))
    assert len({whole.get(path(p, n), 0) for p in ("gate", "up", "down") for n in range(2)}) == 1
    free = ranks(solve(table(EVERY), 900))
    assert len({free.get(path(part), 0) for part in "qkv"}) > 1


def test_caps_sites_and_candidates():
    cap = Cap(rule="feed_forward @ last(1)", most=Budget(amount=5, unit="ranks"))
    found = ranks(solve(table(EVERY), 900, caps=(cap,)))
    assert sum(found.get(path(part, 1), 0) for part in ("gate", "up", "down")) == 5
    few = solve(table(EVERY), 400, max_sites=3)
    assert len(few.placement.adapters) == 3
    assert few.gap == 0
    only = solve(table(EVERY), 300, only="attention")
    assert {str(a.site.role.family) for a in only.placement.adapters} == {"attention"}
    assert only.notes == ()
    partly = solve(table({path("up"): 1.0, path("down"): 1.0}), 60, only="feed_forward @ first(1)")
    assert partly.notes == (
        "1 of the 3 sites of feed_forward @ first(1) have no score, and no adapter",
    )


def test_ranks_that_are_allowed():
    assert set(ranks(solve(table(EVERY), 600, ranks=(0, 2, 4))).values()) == {2, 4}
    lowest = ranks(solve(table(EVERY), 300, min_rank=1))
    assert len(lowest) == 14
    # k and v are 8 by 4: nothing above 4 fits them, whatever is allowed.
    assert max(ranks(solve(table({path("k"): 1.0}), 4, "ranks")).values()) == 4
    assert Constraints().allowed(100, 4) == tuple(range(17))
    assert Constraints(min_rank=20).allowed(100, 4) == (20,)
    assert Constraints(ranks=(8, 0, 4, 4), max_rank=5).allowed(100, 4) == (0, 4)
    assert Constraints(ranks=(8, 4)).allowed(6, 4) == (4,)


def test_a_list_of_roles_is_a_rule():
    assert rule_of_roles("q,k, v") == "all.q | all.k | all.v"
    assert rule_of_roles("attention.q, feed_forward") == "attention.q | feed_forward"
    assert rule_of_roles("names(a, b)") == "names(a, b)"
    assert rule_of_roles("attention.q | attention.k") == "attention.q | attention.k"
    found = ranks(solve(table(EVERY), 900, ties=(Tie(rule=rule_of_roles("q,k,v")),)))
    assert found == ranks(solve(table(EVERY), 900, ties=(QKV,)))


@pytest.mark.parametrize(
    ("amount", "limits", "message"),
    [
        (11, {}, "a budget of 11 parameters is below the smallest allocation: with the sites and"),
        (11, {}, "the smallest takes 12 and the largest 1,664 parameters"),
        (1665, {}, "a budget of 1,665 parameters is above the largest allocation"),
        (231, {"min_rank": 1}, "the smallest takes 232 and the largest 1,664 parameters"),
        (300, {"max_rank": 1}, "the smallest takes 12 and the largest 232 parameters"),
        # Three of the widest sites at rank 8, of 20 parameters each.
        (481, {"max_sites": 3}, "the smallest takes 12 and the largest at most 480 parameters"),
        # 60 for attention, and 8 ranks of 20 at each of six others.
        (
            1021,
            {"caps": (Cap(rule="attention", most=Budget(amount=60)),)},
            "a budget of 1,021 parameters is above the largest allocation: with the sites and "
            "ranks that are allowed, the smallest takes 12 and the largest at most 1,020",
        ),
        # 5 ranks of 20 at the widest of them.
        (
            101,
            {"caps": (Cap(rule="all", most=Budget(amount=5, unit="ranks")),)},
            "the largest at most 100 parameters",
        ),
        (
            900,
            {"min_rank": 1, "max_sites": 9},
            "the most sites with an adapter are 9, and the lowest ranks of all sites take 14",
        ),
        (
            900,
            {"min_rank": 1, "caps": (Cap(rule="attention", most=Budget(amount=60)),)},
            "the cap on attention, in parameters, is 60, and the lowest ranks of all sites take 11",
        ),
        (
            900,
            {"caps": (Cap(rule="all", most=Budget(amount=9)),)},
            "no site can have an adapter: none whose score is above zero fits within the budget",
        ),
        (
            900,
            {"ranks": (6, 8)},
            "model.layers.0.self_attn.k_proj can have none of the ranks that are allowed: its "
            "smaller dimension is 4",
        ),
        (900, {"only": "head"}, "only head: none of the 1 sites that it selects has a score by h"),
        (900, {"only": "expert"}, "only expert: selects no site. expert: llama has no expert site"),
        (900, {"only": "attention:4"}, "only attention:4: attention:4 states a rank; here a rule"),
        (900, {"ties": (Tie(rule="attention.qkv"),)}, "the tie attention.qkv: selects no site."),
        (
            900,
            {"ties": (Tie(rule="attention.q"),)},
            "the tie attention.q: binds nothing, for it selects no two sites of one layer",
        ),
        (
            900,
            {"ties": (QKV, Tie(rule="attention.v | attention.o"))},
            "the tie attention.v | attention.o: model.layers.0.self_attn.v_proj is in another tie",
        ),
        (
            900,
            {"caps": (Cap(rule="head", most=Budget(amount=9)),)},
            "the cap head: none of the 1 sites that it selects is among the 14 to choose from",
        ),
    ],
)
@pytest.mark.parametrize("solver", ["exact", "greedy"])
def test_what_no_allocation_keeps(amount, limits, message, solver):
    with pytest.raises(PlacementError) as error:
        solve(table(EVERY), amount, solver=solver, **limits)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"min_rank": -1}, "a rank is not below 0: -1"),
        ({"max_rank": 2.5}, "a rank is a whole number, not 2.5"),
        ({"max_rank": 0}, "the highest rank, 0, is below 1, the lowest that an adapter can have"),
        ({"min_rank": 4, "max_rank": 2}, "the highest rank, 2, is below 4, the lowest that an ad"),
        ({"ranks": (0,)}, "the ranks [0] hold none above 0"),
        ({"ranks": (0, 4, 8), "min_rank": 9}, "none of the ranks 0, 4, 8 is at least 9"),
        ({"ranks": (0, 4, 8), "min_rank": 5, "max_rank": 7}, "4, 8 is at least 5 and at most 7"),
        ({"max_sites": 0}, "at least 1 site has an adapter, not 0"),
    ],
)
def test_constraints_that_contradict_themselves(limits, message):
    with pytest.raises(PlacementError) as error:
        Constraints(**limits)
    assert message in str(error.value)


def test_other_requests_that_are_refused():
    for amount in (0, -3, 1.5, True):
        with pytest.raises(PlacementError, match="a budget is a positive whole number of bytes"):
            Budget(amount=amount, unit="bytes")
    with pytest.raises(PlacementError, match=r"unknown unit 'rank' .*did you mean ranks\?"):
        Budget(amount=1, unit="rank")
    with pytest.raises(PlacementError, match=r"unknown solver 'greed' \(did you mean greedy\?\)"):
        solve(table(EVERY), 900, solver="greed")
    with pytest.raises(RuleError, match=r"unknown word atention \(did you mean attention\?\)"):
        solve(table(EVERY), 900, only="atention")


def test_the_scores_decide_and_their_order_does_not():
    forwards = solve(table(EVERY), 700)
    backwards = solve(table(dict(reversed(EVERY.items()))), 700)
    assert forwards == backwards
    larger = solve(table({name: 8 * value for name, value in EVERY.items()}), 700)
    assert larger.placement == forwards.placement
    assert larger.utility == pytest.approx(8 * forwards.utility)
    renamed = replace(SMALL, model="elsewhere")
    assert ranks(solve(table(EVERY), 700, anatomy=renamed)) == ranks(forwards)
