import numpy as np
import pytest
from arms import TOKENS, arm
from decisions import simulated
from scipy import stats

from loratlas.analysis.estimates import estimate
from loratlas.analysis.joint import Joint, joint


def _stack(arms):
    return np.stack([each.nll for each in arms.by_name.values()])


def test_the_variance_of_a_difference_is_that_of_its_estimate():
    """Where no component comes out negative, which the matrix treats together."""
    chance = np.random.default_rng(1)
    arms = simulated(chance, {"a": 2.0, "b": 2.1, "c": 2.3}, by_seed=0.1, by_example=0.5)
    found = joint(_stack(arms), arms.num_tokens.astype(float))
    names = list(arms.by_name)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        sums = arms.by_name[names[i]].nll - arms.by_name[names[j]].nll
        expected = estimate(sums, arms.num_tokens)
        weights = np.zeros(3)
        weights[[i, j]] = 1, -1
        assert weights @ found.mean == pytest.approx(expected.value)
        assert weights @ found.covariance @ weights == pytest.approx(expected.standard_error**2)


def test_one_difference_has_the_freedom_of_its_estimate():
    chance = np.random.default_rng(2)
    arms = simulated(chance, {"a": 2.0, "b": 2.1}, by_seed=0.1, by_example=0.5)
    expected = estimate(arms.by_name["a"].nll - arms.by_name["b"].nll, arms.num_tokens)
    found = joint(_stack(arms), arms.num_tokens.astype(float))
    assert found.freedom == pytest.approx(expected.freedom)


def test_rows_of_different_lengths():
    one, other = arm("one", 2.0, noise=0.2), arm("other", 2.1, noise=0.2)
    found = joint(np.stack([one.nll, other.nll]), TOKENS.astype(float))
    assert found.mean == pytest.approx([2.0, 2.1])
    expected = estimate(one.nll - other.nll, TOKENS)
    apart = found.covariance[0, 0] + found.covariance[1, 1] - 2 * found.covariance[0, 1]
    assert apart == pytest.approx(expected.standard_error**2, rel=0.02)


def test_draws_follow_a_multivariate_t():
    found = Joint(mean=np.array([1.0, 2.0]), covariance=np.array([[1, 0.8], [0.8, 1]]), freedom=5)
    drawn = found.draw(20_000, np.random.default_rng(3))
    apart = (drawn[:, 0] - drawn[:, 1] + 1) / np.sqrt(0.4)
    assert stats.kstest(apart, stats.t(5).cdf).pvalue > 0.01
    again = found.draw(20_000, np.random.default_rng(3))
    assert (drawn == again).all()
