"""A trial in a pack is the trial that PEFT and Trainer train alone, for each family."""

import pytest
import torch
from packed_cases import Trial, case_of

import families
from loratlas.train.packed.batch import Flat
from loratlas.train.packed.opening import open_base

# What the issue of equality allows: fp32 sums in another order, 6 optimiser steps long.
ALLOWED = 1e-5

TRIALS = [
    Trial(rule="all", rate=1e-2, seed=0),
    Trial(rule="attention", rate=3e-3, seed=1, rank=2),
    Trial(rule="feed_forward", rate=5e-3, seed=0, rank=8),
    Trial(rule="attention:4 + feed_forward:2", rate=2e-3, seed=2),
    Trial(rule="all @ layers(1..)", rate=2e-2, seed=1, rank=1),
    Trial(rule="head + feed_forward @ layers(2)", rate=5e-3, seed=3),
]
# Experts are no linear maps; what is packed of these families is the rest.
WITHOUT_FEED_FORWARD = [
    Trial(rule="attention", rate=1e-2, seed=0),
    Trial(rule="attention.q + attention.v", rate=3e-3, seed=1, rank=2),
    Trial(rule="attention.q:4 + attention.o:2", rate=5e-3, seed=2, rank=8),
    Trial(rule="attention @ layers(1..)", rate=2e-2, seed=1, rank=1),
    Trial(rule="head + attention.o @ layers(2)", rate=5e-3, seed=3),
]
EXPERTS = ("mixtral", "qwen3_moe")


def trials_of(family):
    return WITHOUT_FEED_FORWARD if family in EXPERTS else TRIALS


@pytest.fixture(scope="module", params=list(families.EVERY))
def family(request):
    return request.param


@pytest.fixture(scope="module")
def case(family, tmp_path_factory):
    return case_of(family, tmp_path_factory.mktemp(family))


@pytest.fixture(scope="module")
def alone(case, family):
    return [case.by_reference(trial) for trial in trials_of(family)]


@pytest.fixture(scope="module")
def opened(case):
    return open_base(case.base, case.anatomy, case.rows, case.masking)


def require_equal(packed, alone):
    assert len(alone[0].losses) == 6
    for number, (found, wanted) in enumerate(zip(packed, alone, strict=True)):
        assert found.distance(wanted) <= ALLOWED, number
        assert found.loss_distance(wanted) <= ALLOWED, number


def test_a_packed_trial_equals_the_same_trial_alone(case, family, alone, opened):
    require_equal(case.packed(trials_of(family), base=opened), alone)


def test_rows_filled_up_give_the_same(case, family, alone):
    require_equal(case.packed(trials_of(family), base=case.whole()), alone)


def test_bases_of_one_stack_are_run_flat_and_by_block(case, opened):
    assert isinstance(opened.layout, Flat) == (case.base.task != "seq2seq")
    assert opened.backbone.num_blocks == (3 if case.base.task != "seq2seq" else 0)


def test_the_base_is_as_it_was(case, opened):
    model = case.base.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    case.packed([Trial(rule="attention")], base=opened)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any("forward" in module.__dict__ for module in model.modules())
    assert model.config._attn_implementation == "sdpa"
    assert not any(parameter.grad is not None for parameter in model.parameters())
