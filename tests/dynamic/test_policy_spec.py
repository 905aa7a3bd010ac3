"""What a study file may say of a policy, where a trial begins, and what is refused."""

import subprocess
import sys

import pytest
from stand_in import placement

import anatomies
from loratlas.dynamic.adalora import AdaLora
from loratlas.dynamic.saliency import Saliency
from loratlas.dynamic.spec import (
    POLICIES,
    PolicySpec,
    build,
    capacities,
    initial_placement,
    largest,
    schedule_of,
    smallest,
)
from loratlas.errors import PlacementError
from loratlas.placement.placement import SCALINGS, LoraSpec, place

LORA = LoraSpec(rank=8, alpha=16)


def read(policy="saliency", **options):
    return PolicySpec.read({"policy": policy, **options})


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_survives_its_json(name):
    spec = read(name, warmup=12, interval=0.05)
    assert PolicySpec.read(spec.to_json()) == spec
    assert spec.to_json()["warmup"] == 12


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"policy": "salience"},
            "unknown policy 'salience' (did you mean saliency?); it is one of saliency, adalora, "
            "attention_entropy",
        ),
        ({}, "unknown policy None; it is one of saliency, adalora, attention_entropy"),
        (
            {"policy": "adalora", "intervall": 3},
            "policy adalora has no option intervall (did you mean interval?); it takes initial, "
            "warmup, final, interval, min_rank, beta, beta2, orthogonality, unit",
        ),
        (
            {"policy": "adalora", "max_rank": 3},
            "policy adalora has no option max_rank (did you mean min_rank?); it takes initial, "
            "warmup, final, interval, min_rank, beta, beta2, orthogonality, unit",
        ),
        ({"initial": 0}, "initial is a number above 0, not 0"),
        ({"initial": "much"}, "initial is a number above 0, not 'much'"),
        ({"initial": float("nan")}, "initial is a number above 0, not nan"),
        (
            {"policy": "adalora", "initial": 0.9},
            "initial is at least 1, for ranks only fall, not 0.9",
        ),
        (
            {"warmup": 1.5},
            "warmup is a share of the steps below 1, or a whole number of steps, not 1.5",
        ),
        (
            {"final": -1},
            "final is a share of the steps below 1, or a whole number of steps, not -1",
        ),
        (
            {"interval": 0},
            "interval is a share of the steps below 1, or a whole number of steps, not 0",
        ),
        ({"min_rank": 1.0}, "min_rank is an integer from 0 up, not 1.0"),
        ({"min_rank": 3, "max_rank": 2}, "max_rank is an integer from 3 up, not 2"),
        ({"max_rank": 0}, "max_rank is an integer from 1 up, not 0"),
        ({"explore": 1}, "explore is at least 0 and below 1, not 1"),
        ({"beta": 1}, "beta is a number above 0 and below 1, not 1"),
        ({"policy": "adalora", "unit": "bytes"}, "unit is one of parameters, ranks, not 'bytes'"),
        (
            {"policy": "adalora", "orthogonality": -0.5},
            "orthogonality is a number from 0 up, not -0.5",
        ),
        (
            {"policy": "attention_entropy", "strength": 1},
            "strength is a number between -1 and 1, both left out, not 1",
        ),
        ({"policy": "attention_entropy", "rows": 0}, "rows is a positive integer, not 0"),
        (
            {"policy": "attention_entropy", "without_first_token": 1},
            "without_first_token is true or false, not 1",
        ),
    ],
)
def test_what_a_file_may_not_say(given, message):
    data = given if "policy" in given or not given else {"policy": "saliency", **given}
    with pytest.raises(PlacementError) as error:
        PolicySpec.read(data)
    assert str(error.value) == message


def test_a_trial_begins_with_more_than_the_target_in_one_rank():
    candidates = place(anatomies.gpt2(layers=2), "all", rank=8)
    begun = initial_placement(read(initial=1.5), candidates, candidates.trainable_parameters, LORA)
    assert {adapter.rank for adapter in begun.adapters} == {12}
    assert {adapter.alpha for adapter in begun.adapters} == {24}  # one scale at every rank
    assert begun.trainable_parameters == 1.5 * candidates.trainable_parameters


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("initial", [0.5, 1, 3])
def test_scales_are_those_of_the_candidates_wherever_a_trial_begins(scaling, initial):
    rule = "attention:4 + feed_forward"
    lora = LoraSpec(rank=8, alpha=16, scaling=scaling)
    candidates = place(anatomies.gpt2(layers=2), rule, rank=8, alpha=16, scaling=scaling)
    target = candidates.trainable_parameters
    begun = initial_placement(read(initial=initial), candidates, target, lora)
    before = candidates.by_path
    for path, adapter in begun.by_path.items():
        assert adapter.rank == initial * before[path].rank
        # The alpha is made of scale and rank, and the scale of both again.
        assert begun.scale(adapter) == pytest.approx(candidates.scale(before[path]), rel=1e-12)


def test_a_trial_begins_at_rank_1_at_least():
    candidates = placement()
    target = smallest(read(), [adapter.site for adapter in candidates.adapters])
    begun = initial_placement(read(), candidates, target, LORA)
    assert {adapter.rank for adapter in begun.adapters} == {1}
    assert schedule_of(read(), begun, target, 40).start == begun.trainable_parameters


def test_bounds_of_a_budget_are_said():
    candidates = placement("attention.q | attention.k")  # 8 to 8 and 8 to 4, twice
    sites = [adapter.site for adapter in candidates.adapters]
    assert smallest(read(), sites) == 16
    assert smallest(read(min_rank=2), sites) == 2 * 2 * (16 + 12)
    assert largest(read(), sites) == 2 * (8 * 16 + 4 * 12)
    assert largest(read(max_rank=3), sites) == 2 * 3 * (16 + 12)
    with pytest.raises(PlacementError) as error:
        initial_placement(read(), candidates, 15, LORA)
    assert str(error.value) == (
        "policy saliency: a budget of 15 parameters is below the smallest placement; over these 4 "
        "sites it is from 16 to 352"
    )
    with pytest.raises(PlacementError) as error:
        initial_placement(read("adalora"), candidates, 353, LORA)
    assert str(error.value) == (
        "policy adalora: a budget of 353 parameters is above the largest placement; over these 4 "
        "sites it is from 16 to 352"
    )
    for target in (16, 352):
        initial_placement(read(), candidates, target, LORA)


def test_ranks_outside_their_bounds_are_said():
    candidates = placement("attention.q", rank=4)
    with pytest.raises(PlacementError) as error:
        initial_placement(read(max_rank=5), candidates, 128, LORA)
    assert str(error.value) == (
        "policy saliency: with initial 1.5 a trial begins at rank 6 at "
        "model.layers.0.self_attn.q_proj, above max_rank 5"
    )
    with pytest.raises(PlacementError, match=r"begins at rank 2 at .*, below min_rank 4"):
        initial_placement(read(initial=0.5, min_rank=4), candidates, 128, LORA)


def test_how_wide_a_site_may_grow():
    candidates = placement("attention.q | feed_forward.up", rank=1, layers=1)
    assert set(capacities(read(), candidates).values()) == {4}
    assert set(capacities(read(initial=0.5), candidates).values()) == {8}
    wide = placement("attention.q | feed_forward.up", rank=3, layers=1)
    assert set(capacities(read(), wide).values()) == {8}  # full rank
    assert set(capacities(read(max_rank=5), wide).values()) == {5}
    assert set(capacities(read("adalora"), wide).values()) == {3}


def test_policies_are_built():
    begun = placement()
    for name, kind in (("saliency", Saliency), ("adalora", AdaLora)):
        policy = build(read(name), placement=begun, target_parameters=300, total_steps=40)
        assert (type(policy), policy.name) == (kind, name)
        assert policy.form == read(name).form == ("svd" if name == "adalora" else "product")
        assert policy.orthogonality == (0.5 if name == "adalora" else 0)
        with pytest.raises(ValueError, match=f"policy {name}: priors are not taken"):
            build(read(name), placement=begun, target_parameters=300, total_steps=40, priors={})
    with pytest.raises(ValueError, match="policy attention_entropy: priors are missing"):
        build(read("attention_entropy"), placement=begun, target_parameters=300, total_steps=40)


def test_a_specification_loads_no_torch():
    code = (
        "import loratlas.dynamic.spec, loratlas.dynamic.selection, sys; "
        "print(*{'torch', 'peft', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
