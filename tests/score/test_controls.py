"""What the controls say, and what an allocator makes of it."""

import numpy as np
import pytest
from scipy import stats
from scored_subjects import subject_of

import anatomies
from loratlas.allocate.allocate import allocate
from loratlas.allocate.budget import Budget
from loratlas.allocate.constraints import Constraints, Tie
from loratlas.placement.placement import LoraSpec
from loratlas.score.controls import Depth, InputWidth, Parameters, Random, Uniform
from loratlas.score.run import score

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
    assert set(values(Uniform(), subject).values()) == {1.0}
    assert values(Parameters(), subject) == {p: s.d_in + s.d_out for p, s in sites.items()}
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


def test_equal_scores_give_equal_ranks_where_all_sites_are_tied(subject):
    """A cheap site would get more rank than a dear one otherwise: equal worth, lower cost."""
    scores = score(Uniform(), subject_of(subject.base, subject.anatomy, ()))
    per_rank = sum(subject.anatomy.by_path[each.path].parameters_per_rank for each in scores.scores)
    allocation = allocate(
        scores,
        subject.anatomy,
        Budget(amount=3 * per_rank + per_rank // 2),
        lora=LoraSpec(rank=4, alpha=8),
        constraints=Constraints(ties=(Tie(rule="all", across_layers=True),)),
        solver="exact",
    )
    assert {adapter.rank for adapter in allocation.placement.adapters} == {3}
    assert len(allocation.placement.adapters) == len(scores.scores)


def test_the_drawn_numbers_never_change(subject):
    found = values(Random(), subject)["transformer.h.0.attn.c_attn"]
    assert found == pytest.approx(PINNED, abs=1e-12)
    assert np.all((Random().measure(subject).values >= 0) & (Random().measure(subject).values < 1))


PINNED = 0.01718152020988417
