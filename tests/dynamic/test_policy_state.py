"""A policy that was put away and taken up again decides what it would have decided."""

import copy

import pytest
import torch
from stand_in import StandIn, placement

from loratlas.dynamic.spec import PolicySpec, build, initial_placement, is_query_or_key
from loratlas.placement.placement import LoraSpec
from loratlas.train.state import State

STEPS = 40
POLICIES = {
    "saliency": {"policy": "saliency", "explore": 0.3, "interval": 3},
    "adalora": {"policy": "adalora", "interval": 3},
    "adalora by ranks": {"policy": "adalora", "unit": "ranks", "interval": 3},
    "attention_entropy": {"policy": "attention_entropy", "interval": 3},
}


@pytest.fixture(params=POLICIES.values(), ids=POLICIES)
def spec(request):
    return PolicySpec.read(request.param)


def begun(spec):
    """A trial and its policy at their beginning."""
    candidates = placement()
    target = candidates.trainable_parameters // 2
    start = initial_placement(spec, candidates, target, LoraSpec(rank=4, alpha=4))
    sites = [adapter.site for adapter in start.adapters]
    priors = {site.path: 1 + 0.2 * site.layer for site in sites if is_query_or_key(site)}
    policy = build(
        spec, placement=start, target_parameters=target, total_steps=STEPS,
        priors=priors if spec.name == "attention_entropy" else None,
    )  # fmt: skip
    return StandIn(start, form=policy.form, seed=7), policy


def written(policy, folder):
    policy.state().write(folder)
    return State.read(folder)


@pytest.mark.parametrize("stop", [1, 6, 13, 20, STEPS - 1])
def test_it_goes_on_as_if_it_never_stopped(spec, stop, tmp_path):
    once, policy = begun(spec)
    wanted = list(once.train(policy, STEPS))
    assert len(wanted) > 3

    trial, policy = begun(spec)
    found = list(trial.train(policy, stop))
    state = written(policy, tmp_path)
    _, policy = begun(spec)
    policy.restore(state)
    found += trial.train(policy, STEPS, first=stop + 1)
    assert found == wanted


def test_its_state_is_needed(spec):
    """Otherwise nothing could be told from these tests."""
    once, policy = begun(spec)
    wanted = list(once.train(policy, STEPS))
    trial, policy = begun(spec)
    found = list(trial.train(policy, 9))
    _, forgetful = begun(spec)
    found += trial.train(forgetful, STEPS, first=10)
    assert found != wanted


def test_a_policy_that_saw_nothing_has_a_state_too(spec, tmp_path):
    trial, policy = begun(spec)
    _, again = begun(spec)
    again.restore(written(policy, tmp_path))
    assert list(trial.train(again, STEPS)) == list(begun(spec)[0].train(policy, STEPS))


def test_two_policies_of_one_state_do_not_touch_each_other(spec):
    trial, policy = begun(spec)
    list(trial.train(policy, 9))
    _, again = begun(spec)
    again.restore(policy.state())
    before = {name: each.clone() for name, each in policy.state().tensors.items()}
    list(copy.deepcopy(trial).train(again, 20, first=10))
    after = policy.state().tensors
    assert all(torch.equal(before[name], after[name]) for name in before)
