import math

import moocore
import numpy as np
import pytest
from arms import TOKENS, arm
from decisions import MIB, cost, losses, run, same_costs, simulated
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from loratlas.analysis.arms import Arms
from loratlas.analysis.contrasts import Arm
from loratlas.analysis.estimates import estimate
from loratlas.analysis.pareto import frontier, on_frontier
from loratlas.errors import RequestError
from loratlas.measure.scores import SplitScore

NOTHING = np.zeros((0, len(TOKENS)))
POINTS = st.integers(2, 3).flatmap(
    lambda size: st.lists(st.tuples(*[st.integers(0, 4)] * size), min_size=1, max_size=12)
)


def _by_definition(points):
    def beats(one, other):
        return all(a <= b for a, b in zip(one, other, strict=True)) and one != other

    return [not any(beats(other, point) for other in points) for point in points]


@settings(max_examples=150, deadline=None)
@given(POINTS)
def test_membership_is_the_definition(points):
    values = np.array(points, dtype=float)
    found = on_frontier(values)
    assert found.tolist() == _by_definition(points)
    assert found.tolist() == moocore.is_nondominated(values, keep_weakly=True).tolist()
    assert (on_frontier(np.stack([values, values])) == found).all()


def test_a_frontier_with_its_volume_by_hand():
    """Losses 1 to 3 and parameters 1,000 to 3,000; `third` is beaten by `second`."""
    arms = losses({"first": 3.0, "second": 2.0, "third": 2.5, "fourth": 1.0}, noise=1e-6)
    costs = {
        "first": cost(1_000),
        "second": cost(2_000),
        "third": cost(2_000),
        "fourth": cost(3_000),
    }
    found = frontier(arms, costs, ("loss", "parameters"))
    assert [point.on_frontier for point in found.points] == [True, True, False, True]
    assert [point.probability for point in found.points] == [1, 1, 0, 1]
    assert found.points[1].values == pytest.approx((2.0, 2_000))
    assert found.reference == pytest.approx((3.2, 3_200))
    steps = 0.2 * 2_200 + 1.0 * 1_200 + 1.0 * 200
    assert found.hypervolume == pytest.approx(steps, rel=1e-6)
    assert found.share == pytest.approx(steps / (2.2 * 2_200), rel=1e-6)
    assert found.seeds == tuple(range(6))
    near = frontier(arms, costs, ("loss", "parameters"), reference=(2.5, 2_500))
    assert near.hypervolume == pytest.approx(0.5 * 500, rel=1e-6)
    assert frontier(arms, costs, reference=(0.5, 10)).hypervolume == 0


def test_the_probability_of_two_placements_is_a_tail_of_t():
    """The dearer one is on the frontier where its loss is lower: p of the paired comparison."""
    arms = simulated(np.random.default_rng(4), {"cheap": 2.0, "dear": 1.98}, by_seed=0.05)
    costs = {"cheap": cost(1_000), "dear": cost(2_000)}
    found = frontier(arms, costs, num_draws=40_000)
    apart = estimate(arms.by_name["dear"].nll - arms.by_name["cheap"].nll, arms.num_tokens)
    assert found.points[0].probability == 1
    expected = stats.t.cdf(-apart.value / apart.standard_error, apart.freedom)
    assert 0.1 < expected < 0.9
    assert found.points[1].probability == pytest.approx(expected, abs=0.02)
    assert frontier(arms, costs, seed=1) == frontier(arms, costs, seed=1)


def test_two_names_of_one_placement_are_on_it_together():
    one = arm("one", 2.0, noise=0.1)
    arms = run(one, Arm(name="twin", seeds=one.seeds, nll=one.nll))
    found = frontier(arms, same_costs(arms))
    assert [(p.on_frontier, p.probability) for p in found.points] == [(True, 1.0)] * 2
    assert found.share == pytest.approx(1)


def test_time_varies_as_the_steps_of_its_probe():
    arms = losses({"one": 2.0, "other": 2.0}, noise=1e-6)
    steps = dict(zip(arms.by_name, [(1.0, 2.0, 3.0), (1.9, 1.9, 1.9)], strict=True))
    costs = {
        name: cost(1, seconds=10 * np.median(each), step_seconds=each)
        for name, each in steps.items()
    }
    found = frontier(arms, costs, ("parameters", "time"), num_draws=20_000)
    # The median of three draws from 1, 2, 3 is 1 in 7 of 27 cases.
    assert found.points[0].probability == pytest.approx(7 / 27, abs=0.015)
    assert [point.on_frontier for point in found.points] == [False, True]
    assert found.says == ("Of time, only the spread of the probe's steps is captured.",)


def test_accuracy_is_better_when_higher():
    def score(right):
        correct = np.minimum(right, TOKENS)
        return SplitScore(
            row=np.arange(len(TOKENS)),
            nll=TOKENS * 2.0,
            num_tokens=TOKENS,
            num_bytes=TOKENS,
            num_correct=correct,
        )

    arms = losses({"few": 2.0, "many": 2.0})
    scores = {"few": dict.fromkeys(range(6), score(2)), "many": dict.fromkeys(range(6), score(9))}
    arms = Arms(
        scores=scores,
        by_name=arms.by_name,
        baseline=None,
        base_nll=None,
        num_tokens=TOKENS,
    )
    found = frontier(arms, same_costs(arms, many=cost(2_000)), ("accuracy", "parameters"))
    assert [point.on_frontier for point in found.points] == [True, True]
    assert found.points[1].values[0] == pytest.approx(np.minimum(9, TOKENS).sum() / TOKENS.sum())
    equal = frontier(arms, same_costs(arms), ("accuracy", "parameters", "adapter_bytes"))
    assert [point.on_frontier for point in equal.points] == [False, True]
    assert equal.reference[0] < equal.points[0].values[0]


def test_who_is_left_out_and_why():
    nan = Arm(name="nan", seeds=(0,), nll=np.full((1, len(TOKENS)), math.nan))
    arms = run(
        *losses({"full": 2.0, "unknown": 2.0, "broken": 2.0}).by_name.values(),
        nan,
        Arm(name="none", seeds=(), nll=NOTHING),
    )
    costs = same_costs(
        arms, unknown=cost(1, memory=None), broken=cost(1, num_trials=6, num_failed=2)
    )
    found = frontier(arms, costs, ("loss", "memory"))
    assert found.left_out == {
        "unknown": "Its memory is not known.",
        "broken": "2 of 6 trials diverged or failed.",
        "nan": "Some of its scores are no numbers.",
        "none": "It has no scores.",
    }
    assert [point.placement for point in found.points] == ["full"]
    assert found.points[0].values == pytest.approx((2.0, 64 * MIB))
    assert (found.points[0].probability, found.share) == (1, pytest.approx(1))


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        (losses({"a": 2.0, "b": 2.1}, seeds=(3,)), "One seed: how sure the frontier is"),
        (
            run(
                *(Arm(name=n, seeds=(0, 1), nll=np.array([[2.0], [3.0]])) for n in "ab"),
                num_tokens=np.array([4]),
            ),
            "One example: how sure the frontier is",
        ),
    ],
)
def test_without_a_spread_there_is_a_frontier_and_no_probability(arms, said):
    found = frontier(arms, same_costs(arms))
    assert {point.probability for point in found.points} == {None}
    assert any(point.on_frontier for point in found.points)
    assert found.says[0].startswith(said)


def test_nothing_to_draw():
    nobody = run(Arm(name="none", seeds=(), nll=NOTHING))
    found = frontier(nobody, same_costs(nobody), ("loss", "time"))
    assert (found.points, found.hypervolume, found.share) == ((), None, None)
    apart = run(arm("a", 2.0, seeds=(0, 1)), arm("b", 2.0, seeds=(2, 3)))
    found = frontier(apart, same_costs(apart))
    assert set(found.left_out.values()) == {"The placements have no seed in common."}
    only_costs = frontier(nobody, same_costs(nobody), ("parameters", "time"))
    assert only_costs.points[0].probability == 1


@pytest.mark.parametrize(
    ("objectives", "said"),
    [
        (("loss",), "a frontier takes two or three different objectives, not loss"),
        ((), "a frontier takes two or three different objectives, not none"),
        (("loss", "loss"), "a frontier takes two or three different objectives, not loss, loss"),
        (("loss", "memroy"), r"memroy: there is no such objective \(did you mean memory\?\)"),
    ],
)
def test_wrong_objectives(objectives, said):
    arms = losses({"a": 2.0})
    with pytest.raises(RequestError, match=said):
        frontier(arms, same_costs(arms), objectives)
    with pytest.raises(RequestError, match=r"a reference point is 2 numbers here, not \[1\]"):
        frontier(arms, same_costs(arms), reference=[1])
