"""What the controls say, and what an allocator makes of it."""

import numpy as np
import pytest
from scipy import stats
from scored_subjects import Said, subject_of

import anatomies
from loratlas.allocate.allocate import allocate
from loratlas.allocate.budget import Budget
from loratlas.allocate.constraints import Constraints
from loratlas.placement.placement import LoraSpec
from loratlas.score.controls import Depth, InputWidth, Parameters, Random, Uniform
from loratlas.score.run import score
from loratlas.score.scorer import Needs

CONTROLS = [Uniform, Random, Parameters, InputWidth, Depth]


@pytest.fixture
def subject(base, anatomy):
    """Every site of the tiny GPT-2, and no row at all."""
    return subject_of(base, anatomy, (), rule="all | embedding | head")


def values(control, subject):
    found = control.measure(subject).values
    return {site.path: value for site, value in zip(subject.sites, found, strict=True)}


@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_needs_no_row_and_costs_nothing(control, subject):
    table = score(control(), subject)
    assert len(table.scores) == len(subject.sites)
    assert (table.cost.num_forwards, table.cost.num_backwards) == (0, 0)
    assert table.agreement is None
    assert {each.num_tokens for each in table.scores} == {None}


def test_the_values_are_what_they_are_called(subject):
    sites = {site.path: site for site in subject.sites}
    assert values(Parameters(), subject) == {p: s.d_in + s.d_out for p, s in sites.items()}
    assert values(Uniform(), subject) == values(Parameters(), subject)
    assert values(InputWidth(), subject) == {p: s.d_in for p, s in sites.items()}
    depth = values(Depth(), subject)
    assert [depth[f"transformer.h.{layer}.attn.c_attn"] for layer in range(3)] == [1, 2, 3]
    assert depth["transformer.h.2.mlp.c_proj"] == 3
    assert (depth["transformer.wte"], depth["lm_head"]) == (0, 4)


def test_a_decoders_blocks_come_after_those_of_its_encoder(base):
    anatomy = anatomies.t5(encoder=2, decoder=3)
    subject = subject_of(base, anatomy, (), rule="all | head")
    depth = {(s.stack, s.layer): v for s, v in zip(subject.sites, _depths(subject), strict=True)}
    assert [depth["encoder", layer] for layer in range(2)] == [1, 2]
    assert [depth["decoder", layer] for layer in range(3)] == [3, 4, 5]
    assert depth[None, None] == 6


def _depths(subject):
    return Depth().measure(subject).values


def test_chance_does_not_ask_which_other_sites_there_are(base, anatomy):
    everywhere = values(Random(), subject_of(base, anatomy, (), rule="all"))
    some = values(Random(), subject_of(base, anatomy, (), rule="feed_forward @ last(1)"))
    assert some
    assert some.items() <= everywhere.items()


def test_chance_is_another_one_for_another_seed(base):
    anatomy = anatomies.gpt2(width=8, layers=50)
    first, second = (
        Random().measure(subject_of(base, anatomy, (), seed=seed)).values for seed in (0, 1)
    )
    # 200 sites: fixed draws, which no version may change.
    assert abs(stats.kendalltau(first, second).statistic) < 0.15
    assert stats.kstest(first, "uniform").pvalue > 0.05


SHAPES = {
    # The dearest site costs 5 and 9 times the cheapest.
    "gpt2": anatomies.gpt2(width=1024, layers=24),
    "llama": anatomies.llama(4096, 32, key_value=1024, inner=14336, vocabulary=128_256),
}


def ranks_of(control, base, anatomy, amount, unit="parameters", solver="exact", tau=None):
    """Return the ranks that a control's scores come to, of all sites inside the blocks."""
    subject = subject_of(base, anatomy, (), lora=LoraSpec(rank=8, alpha=16), max_rank=32)
    allocation = allocate(
        score(control, subject),
        anatomy,
        Budget(amount=amount, unit=unit),
        lora=subject.lora,
        constraints=Constraints(),
        solver=solver,
        tau=tau,
    )
    found = {adapter.site.path: adapter.rank for adapter in allocation.placement.adapters}
    return [found.get(site.path, 0) for site in subject.sites]


def cost_of_a_rank(anatomy):
    return sum(site.parameters_per_rank for site in anatomy.sites if site.in_block)


@pytest.mark.parametrize("anatomy", SHAPES.values(), ids=list(SHAPES))
@pytest.mark.parametrize("solver", ["exact", "greedy", "proportional"])
@pytest.mark.parametrize("tau", [None, 1.0, 100.0])
def test_uniform_scores_give_every_site_the_same_rank(anatomy, solver, tau, base):
    budget = 8 * cost_of_a_rank(anatomy)
    assert set(ranks_of(Uniform(), base, anatomy, budget, solver=solver, tau=tau)) == {8}
    in_bytes = ranks_of(Uniform(), base, anatomy, 4 * budget, "bytes", solver, tau)
    assert set(in_bytes) == {8}


@pytest.mark.parametrize("anatomy", SHAPES.values(), ids=list(SHAPES))
def test_a_budget_between_two_ranks_is_spent_on_both(anatomy, base):
    ranks = ranks_of(Uniform(), base, anatomy, int(8.5 * cost_of_a_rank(anatomy)), solver="greedy")
    # The very last parameters may buy a cheap site a second one.
    assert {8, 9} <= set(ranks) <= {8, 9, 10}
    assert ranks.count(10) <= len(ranks) / 20


def test_equal_values_alone_would_not_do(base):
    """Why the value of a site is what a rank costs there."""
    ranks = ranks_of(_Equal(), base, SHAPES["llama"], 8 * cost_of_a_rank(SHAPES["llama"]))
    assert max(ranks) > 10 * min(ranks)


class _Equal(Said):
    def __init__(self):
        super().__init__(lambda subject: np.ones(len(subject.sites)), needs=Needs(rows=False))


def test_the_drawn_numbers_never_change(subject):
    found = values(Random(), subject)["transformer.h.0.attn.c_attn"]
    assert found == pytest.approx(PINNED, abs=1e-12)
    assert np.all((Random().measure(subject).values >= 0) & (Random().measure(subject).values < 1))


PINNED = 0.01718152020988417
