"""Estimates and what they say they cannot say; properties of all of them."""

import math
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from loratlas.analysis.components import mean_squares
from loratlas.analysis.estimates import estimate

PLAIN = st.floats(-1e3, 1e3, allow_subnormal=False).map(lambda x: round(x, 3))


@st.composite
def studies(draw, fewest_seeds=1):
    shape = draw(st.tuples(st.integers(fewest_seeds, 5), st.integers(1, 12)))
    sums = draw(arrays(np.float64, shape, elements=PLAIN))
    return sums, draw(arrays(np.int64, shape[1], elements=st.integers(0, 50)))


def _figures(found):
    for field in fields(found):
        value = getattr(found, field.name)
        yield from (value if isinstance(value, tuple) else (value,))


def test_the_interval_and_p_are_those_of_t():
    chance = np.random.default_rng(0)
    sums, tokens = chance.normal(0.5, 1, size=(6, 30)), chance.integers(1, 9, size=30)
    found = estimate(sums, tokens)
    squares = mean_squares(sums, tokens.astype(float))
    law = stats.t(squares.freedom, squares.estimate, np.sqrt(squares.variance))
    assert found.interval == pytest.approx(law.interval(0.95))
    assert found.p_less == pytest.approx(law.sf(0))
    assert found.p_value == pytest.approx(2 * min(law.cdf(0), law.sf(0)))
    assert found.scope == "new seeds and new examples"
    assert found.per_seed == pytest.approx(sums.sum(axis=1) / tokens.sum())
    assert found.value == pytest.approx(np.mean(found.per_seed))


def test_one_seed_says_so():
    chance = np.random.default_rng(0)
    found = estimate(chance.normal(size=(1, 30)), np.full(30, 4))
    assert found.scope == "new examples, this seed"
    assert found.interval[0] < found.value < found.interval[1]
    assert (found.freedom, found.seed_deviation) == (None, None)
    assert found.says == (
        "One seed: the interval is for this seed alone; another may lie outside it.",
    )


def test_two_seeds_come_with_a_warning_and_three_without():
    sums = np.random.default_rng(0).normal(size=(3, 30))
    assert estimate(sums, np.ones(30)).says == ()
    assert estimate(sums[:2], np.ones(30)).says == (
        "Two seeds: an interval called 95% holds the truth in 91% of studies where seeds differ "
        "most.",
    )


@pytest.mark.parametrize(
    ("sums", "tokens", "value", "says"),
    [
        (np.empty((0, 3)), [1, 1, 1], None, "There is no seed to compare."),
        (np.ones((2, 2)), [0, 0], None, "No example has a scored token."),
        (np.array([[1, math.nan], [2, math.inf]]), [1, 1], None, "2 of 4 scores are no numbers."),
        (np.array([[1.0], [2.0]]), [2], 0.75, "One example has no spread"),
        (np.zeros((3, 2)), [1, 5], 0, "the difference is exactly zero"),
        (np.array([[0.1, 0.7], [0.1, 0.7]]), [1, 7], 0.1, "the same difference per token"),
        (np.array([[0.3, 2.1]]), [3, 21], 0.1, "the same difference per token"),
        (np.array([[1.0, 2, 3]]), [1, 1, 2], 1.5, "One seed and 3 examples: fewer than 10 are too"),
        (np.array([[1.0, -1], [-1, 1]]), [1, 1], 0, "The seeds agree exactly"),
    ],
)
def test_what_cannot_be_said(sums, tokens, value, says):
    found = estimate(sums, np.array(tokens))
    assert found.value == (None if value is None else pytest.approx(value))
    assert says in found.says[0]
    assert found.interval is found.p_value is found.standard_error is found.scope is None


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"\(2, 3\) with token counts of shape \(2,\)"):
        estimate(np.zeros((2, 3)), np.ones(2))


@given(studies(), st.integers(-300, 300))
@settings(max_examples=60, deadline=None)
def test_no_figure_is_nan_whatever_the_scale(study, exponent):
    sums, tokens = study
    found = estimate(sums * 2.0**exponent, tokens)
    for figure in _figures(found):
        assert not isinstance(figure, float) or math.isfinite(figure)
    assert (found.interval is None) <= bool(found.says)
    if found.interval is not None:
        assert found.interval[0] <= found.interval[1]
        assert 0 <= found.p_value <= 1


@given(studies(fewest_seeds=2))
@settings(deadline=None)
def test_the_opposite_difference_is_the_mirror_image(study):
    sums, tokens = study
    one, other = estimate(sums, tokens), estimate(-sums, tokens)
    assert other.says == one.says
    if one.interval is not None:
        assert other.value == pytest.approx(-one.value)
        assert other.interval == pytest.approx((-one.interval[1], -one.interval[0]))
        assert other.p_less == pytest.approx(one.p_greater)


@given(studies(fewest_seeds=2), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_seeds_and_examples_plays_no_part(study, random):
    sums, tokens = study
    seeds, examples = list(range(sums.shape[0])), list(range(sums.shape[1]))
    random.shuffle(seeds)
    random.shuffle(examples)
    one, other = estimate(sums, tokens), estimate(sums[seeds][:, examples], tokens[examples])
    assert other.says == one.says
    if one.interval is not None:
        close = 1e-9 * float(np.abs(sums).max())
        assert other.value == pytest.approx(one.value, abs=close)
        assert other.interval == pytest.approx(one.interval, rel=1e-6, abs=close)


@given(studies(), st.integers(-60, 60))
@settings(max_examples=60, deadline=None)
def test_other_units_give_the_same_answer_in_them(study, exponent):
    # Powers of two change no digit, so that the answers are the same to the last bit.
    sums, tokens = study
    one, other = estimate(sums, tokens), estimate(sums * 2.0**exponent, tokens)
    assert other.says == one.says
    if one.interval is not None:
        assert other.interval == tuple(end * 2.0**exponent for end in one.interval)
        assert (other.p_less, other.freedom) == (one.p_less, one.freedom)
