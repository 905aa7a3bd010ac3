"""Components of variance, held against statsmodels, closed forms and scipy."""

import numpy as np
import pytest
from scipy import stats

from loratlas.analysis.components import corpus_losses, mean_squares

# 5 seeds x 8 examples, drawn once with effects of seeds, examples and the rest.
SCORES = np.array(
    [
        [-0.35, 1.03, 2.49, -0.2, 0.23, 0.25, 0.51, -0.02],
        [0.36, 0.59, 2.53, 1.0, 0.69, 0.18, 1.26, 1.35],
        [0.0, -0.14, 1.51, -0.26, -0.26, 1.75, 0.53, 0.79],
        [-0.15, -0.19, 1.11, -0.22, -0.35, -0.23, 0.44, 1.01],
        [-1.18, 1.11, 1.69, -0.23, 1.25, 1.39, 0.11, 0.67],
    ]
)
ALIKE = np.ones(8)


def test_mean_squares_are_those_of_statsmodels_anova():
    # statsmodels 0.15: anova_lm(ols("y ~ C(s) + C(e)")).
    squares = mean_squares(SCORES, ALIKE)
    assert squares.estimate == pytest.approx(SCORES.mean())
    assert squares.seed == pytest.approx(0.692612, abs=1e-6)
    assert squares.example == pytest.approx(1.998165, abs=1e-6)
    assert squares.rest == pytest.approx(0.332273, abs=1e-6)


def test_components_are_those_of_statsmodels_reml():
    # statsmodels 0.15: MixedLM, one group, vc_formula of seeds and examples; REML and analysis
    # of variance agree on balanced data, up to its optimiser (four digits).
    squares = mean_squares(SCORES, ALIKE)
    assert squares.seed_variance == pytest.approx(0.045042, abs=2e-5)
    assert squares.example_variance == pytest.approx(0.333183, abs=1e-3)
    assert np.sqrt(squares.variance) == pytest.approx(0.242823, abs=1e-4)


def test_degrees_of_freedom_by_hand():
    squares = mean_squares(SCORES, ALIKE)
    by_seeds, by_examples = 0.692612 / 40, (1.998165 - 0.332273) / 40
    whole = by_seeds + by_examples
    assert squares.variance == pytest.approx(whole, rel=1e-5)
    assert squares.freedom == pytest.approx(whole / (by_seeds / 4 + by_examples / 7), rel=1e-5)


def test_without_an_effect_of_examples_it_is_the_t_interval_over_seeds():
    # In each column what one seed gains another loses: examples differ by nothing.
    sums = np.array([[1.0, -1, 2, -2, 6], [-1, 1, -2, 2, 0], [0, 0, 0, 0, -6]])
    squares = mean_squares(sums, np.ones(5))
    assert squares.example_variance == 0
    assert np.sqrt(squares.variance) == pytest.approx(stats.sem(sums.mean(axis=1)))
    assert squares.freedom == pytest.approx(2)


def test_seeds_that_agree_leave_the_ratio_estimator_of_surveys():
    # Cochran, Sampling Techniques, equation 6.13, without the correction for finite populations.
    nats, tokens = np.array([3.0, 8, 2, 14, 6]), np.array([2.0, 5, 2, 9, 3])
    squares = mean_squares(np.stack([nats, nats, nats]), tokens)
    ratio = nats.sum() / tokens.sum()
    residual = nats - ratio * tokens
    theirs = np.sum(residual**2) / 4 / 5 / tokens.mean() ** 2
    assert squares.estimate == pytest.approx(ratio)
    assert squares.variance == pytest.approx(theirs)


def test_few_long_examples_leave_few_degrees_of_freedom():
    # Two examples of 10 tokens and four of 1: by hand (2 * 100 + 4)^2 / (2 * 10^4 + 4) = 2.0804.
    tokens = np.array([10.0, 1, 10, 1, 1, 1])
    nats = tokens * np.array([0.1, 0.4, 0.3, 0.2, 0.5, 0.1])
    squares = mean_squares(np.stack([nats, nats]), tokens)
    assert squares.num_effective == pytest.approx(2.0804, abs=1e-4)
    # Seeds agree, so that examples are all there is.
    assert squares.freedom == pytest.approx(2.0804 * 5 / 6, abs=1e-4)
    alike = mean_squares(np.stack([nats, nats]), np.ones(6))
    assert (alike.num_effective, alike.freedom) == pytest.approx((6, 5))


def test_an_effect_of_seeds_on_every_token_is_no_rest():
    # Long examples carry more of it, which a ratio takes out again.
    tokens = np.array([1.0, 10, 100, 5])
    sums = np.array([[0.5], [-0.25], [0.125]]) * tokens
    squares = mean_squares(sums, tokens)
    assert squares.rest == pytest.approx(0, abs=1e-12)
    assert squares.seed_variance == pytest.approx(np.var([0.5, -0.25, 0.125], ddof=1))


def test_a_batch_is_its_studies():
    chance = np.random.default_rng(0)
    sums, tokens = chance.normal(size=(2, 3, 4, 6)), chance.integers(1, 9, size=(2, 3, 6))
    squares = mean_squares(sums, tokens.astype(float))
    assert squares.variance.shape == squares.freedom.shape == (2, 3)
    one = mean_squares(sums[1, 2], tokens[1, 2].astype(float))
    assert one.variance == pytest.approx(squares.variance[1, 2])
    assert one.freedom == pytest.approx(squares.freedom[1, 2])
    losses = corpus_losses(sums, tokens.astype(float))
    assert losses[1, 2, 3] == pytest.approx(sums[1, 2, 3].sum() / tokens[1, 2].sum())


def test_no_variance_at_all():
    squares = mean_squares(np.zeros((3, 4)), np.ones(4))
    assert (squares.variance, squares.freedom) == (0, 1)
