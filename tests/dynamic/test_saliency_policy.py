"""Saliency on plain LoRA: exact gate gradients, budgets that hold, protection, repetition."""

import pickle
from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_in import Case, StandIn, options, placement, policy_of

from loratlas.dynamic.saliency import gate_gradient
from loratlas.train.policy import Grow, LiveSite, Prune

saliency_of = partial(policy_of, "saliency")


def test_the_gate_gradient_is_that_of_an_explicit_gate():
    generator = torch.Generator().manual_seed(3)
    x, target = torch.randn(5, 6, generator=generator), torch.randn(5, 7, generator=generator)
    a = torch.randn(3, 6, generator=generator, requires_grad=True)
    b = torch.randn(7, 3, generator=generator, requires_grad=True)
    gate = torch.ones(3, requires_grad=True)
    (torch.tanh(0.5 * (x @ a.T * gate) @ b.T) - target).square().mean().backward()
    site = placement().adapters[0].site
    live = LiveSite(site=site, scale=0.5, columns=(0, 1, 2), a=a, b=b, grad_a=a.grad, grad_b=b.grad)
    # Sums of 7 and of 6 products in fp32.
    torch.testing.assert_close(gate_gradient(live), gate.grad, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close((a * a.grad).sum(dim=1), gate.grad, rtol=1e-5, atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    steps=st.integers(1, 40),
    share=st.floats(0.05, 2.0),
    told=options(initial=st.floats(0.3, 3.0), explore=st.sampled_from([0, 0.1, 0.9])),
)
def test_the_budget_is_never_exceeded(seed, steps, share, told):
    target, min_rank, policy, trial = Case.of("saliency", told, seed=seed, steps=steps, share=share)
    for step, _ in trial.train(policy, steps):  # checks every step
        assert all(trial.ranks[path] >= min_rank for path in trial.ranks)
        assert all(trial.ranks[path] <= policy.capacities[path] for path in trial.ranks)
        assert step <= policy.schedule.last
    assert 0 < trial.num_parameters <= target


def test_rank_moves_to_where_the_gradient_is():
    begun, policy = saliency_of(placement(), 1000, 60)
    loud = {path: 1000.0 for path in begun.by_path if ".layers.1." in path}
    trial = StandIn(begun, weights=loud)
    before = trial.ranks
    grown = Counter()
    for _, changes in trial.train(policy, 60):
        for change in changes:
            if isinstance(change, Grow):
                grown[change.path in loud] += change.num_columns
    assert grown[True] > 3 * grown[False]  # the others fill what is left
    assert all(trial.ranks[path] < before[path] for path in before if path not in loud)
    assert sum(trial.ranks[path] for path in loud) > sum(before[path] for path in loud)
    # A column of any site could fill what is left.
    dearest = max(site.parameters_per_rank for site in trial.sites.values())
    assert 1000 - dearest < trial.num_parameters <= 1000


def test_new_columns_are_protected_at_the_next_decision_only():
    begun, policy = saliency_of(
        placement(), 900, 100, explore=0.3, interval=10, warmup=5, final=40, initial=1
    )
    trial = StandIn(begun)
    ages = {}
    pruned_at_age = []

    def silence_the_new(step, sites):
        """Columns that were grown have gradients of next to nothing."""
        for path, site in sites.items():
            for place, column in enumerate(site.columns):
                if column >= begun.by_path[path].rank:
                    site.grad_b[:, place] *= 1e-9
                    site.grad_a[place] *= 1e-9
        return sites

    for number, (_, changes) in enumerate(trial.train(policy, 100, seen=silence_the_new)):
        for change in changes:
            if isinstance(change, Prune):
                born = [ages[change.path, k] for k in change.columns if (change.path, k) in ages]
                pruned_at_age += [number - each for each in born]
        for path, columns in trial.fresh.items():
            ages |= {(path, column): number for column in columns}
    assert min(pruned_at_age) == 2


def test_one_seed_gives_one_trajectory_also_through_a_pickle():
    def trajectory(stop=None):
        begun, policy = saliency_of(placement(), 900, 50)
        trial = StandIn(begun, seed=5)
        if stop is None:
            return list(trial.train(policy, 50))
        found = list(trial.train(policy, stop))
        policy, trial.generator = pickle.loads(pickle.dumps(policy)), trial.generator
        return found + list(trial.train(policy, 50, first=stop + 1))

    once = trajectory()
    assert once
    assert trajectory() == once
    assert trajectory(stop=19) == once


def test_a_missing_gradient_is_no_observation():
    begun, policy = saliency_of(placement(rank=2), 400, 40, interval=1, warmup=30, final=5)
    path = next(iter(begun.by_path))
    trial = StandIn(begun, weights={path: 100.0})

    def only_at_first(step, sites):
        if step == 1:
            return sites
        if step % 2:
            return {name: site for name, site in sites.items() if name != path}
        none = {name: torch.zeros_like(getattr(sites[path], name)) for name in ("grad_a", "grad_b")}
        return {**sites, path: replace(sites[path], **none)}

    for _ in trial.train(policy, 30, seen=only_at_first):
        pass
    value = policy._averages[path].values()
    assert min(value) > 1.0  # nothing has been forgotten over 29 steps
    list(trial.train(policy, 40, first=31, seen=only_at_first))
    assert set(range(begun.by_path[path].rank)) <= set(trial.columns[path])


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_gradients_that_are_no_numbers_leave_decisions_as_they_are(odd):
    begun, policy = saliency_of(placement(), 900, 30, interval=3)
    trial = StandIn(begun)

    def break_one(step, sites):
        site = next(iter(sites.values()))
        site.grad_b[:] = odd
        return sites

    assert list(trial.train(policy, 30, seen=break_one))
    assert 0 < trial.num_parameters <= 900


def test_without_any_gradient_ranks_stay_even():
    begun, policy = saliency_of(placement("attention.q"), 16 * 4, 30, initial=2)
    trial = StandIn(begun, weights=dict.fromkeys(begun.by_path, 0.0))
    for _, changes in trial.train(policy, 30):
        assert all(isinstance(change, Prune) for change in changes)
    assert list(trial.ranks.values()) == [2, 2]


@pytest.mark.parametrize(("final", "ranks"), [(0, [2, 2]), (1, [4, 4])])
def test_nothing_grows_that_would_not_be_trained(final, ranks):
    begun, policy = saliency_of(
        placement("attention.q"), 128, 20, initial=0.5, interval=50, final=final
    )
    trial = StandIn(begun)
    list(trial.train(policy, 20))
    assert list(trial.ranks.values()) == ranks


def test_new_columns_never_take_the_last_of_a_site():
    candidates = placement()
    least = sum(adapter.site.parameters_per_rank for adapter in candidates.adapters)
    begun, policy = saliency_of(candidates, least, 60, min_rank=1, explore=0.9)
    trial = StandIn(begun)
    for _ in trial.train(policy, 60):
        assert min(trial.ranks.values()) >= 1
    assert set(trial.ranks.values()) == {1}
