"""The bootstrap of one seed, held against every resample there is, and against t."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from loratlas.analysis.bootstrap import bootstrap


def _corpus(examples=40):
    chance = np.random.default_rng(3)
    tokens = chance.integers(3, 60, size=examples).astype(float)
    return tokens * (0.02 + chance.exponential(0.1, size=examples) - 0.1), tokens


def test_every_resample_of_a_small_corpus():
    sums, tokens = _corpus(5)
    loss = sums.sum() / tokens.sum()

    def error(nats, weights):
        left = nats - nats.sum() / weights.sum() * weights
        return np.sqrt(np.sum(left**2) / 20) / weights.mean()

    distances = []
    for rows in map(list, product(range(5), repeat=5)):
        nats, weights = sums[rows], tokens[rows]
        own = max(error(nats, weights), 1e-3 * error(sums, tokens))
        distances.append((nats.sum() / weights.sum() - loss) / own)
    found = bootstrap(sums, tokens, seed=0, num_resamples=40_000)
    assert found.loss == pytest.approx(loss)
    assert found.standard_error == pytest.approx(error(sums, tokens))
    # A share of 40,000 draws has a standard error of at most 0.25%; four of them.
    for at in np.quantile(distances, [0.1, 0.3, 0.5, 0.7, 0.9]):
        exact, drawn = np.mean(distances <= at), np.mean(found.distances <= at)
        assert drawn == pytest.approx(exact, abs=0.01)


def test_many_gaussian_examples_of_one_length_give_the_t_interval():
    sums = np.random.default_rng(0).normal(0.1, 1, size=400)
    low, high = bootstrap(sums, np.ones(400), seed=0).interval(0.95)
    theirs = stats.ttest_1samp(sums, 0).confidence_interval(0.95)
    # Quantiles of 9,999 resamples have a standard error of 0.03 standard errors of the mean.
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.12 * stats.sem(sums))


def test_p_is_the_level_at_which_the_interval_touches_zero():
    sums, tokens = _corpus()
    sums = sums - 0.075 * tokens
    found = bootstrap(sums, tokens, seed=0)
    p = found.p_less()
    assert 0.001 < p < 0.2
    assert found.interval(1 - 2 * p)[1] == pytest.approx(0, abs=0.01 * found.standard_error)


def test_p_is_never_nothing():
    sums, tokens = _corpus()
    assert bootstrap(sums - 9 * tokens, tokens, seed=0).p_less() == pytest.approx(1e-4)
    assert bootstrap(sums + 9 * tokens, tokens, seed=0).p_less() == pytest.approx(1 - 1e-4)


def test_the_order_of_examples_plays_no_part_and_the_seed_does():
    sums, tokens = _corpus()
    turned = bootstrap(sums[::-1], tokens[::-1], seed=0)
    assert turned.interval(0.95) == bootstrap(sums, tokens, seed=0).interval(0.95)
    assert turned.interval(0.95) != bootstrap(sums, tokens, seed=1).interval(0.95)


def test_batches_change_nothing_but_memory(monkeypatch):
    sums, tokens = _corpus()
    whole = bootstrap(sums, tokens, seed=0, num_resamples=99).distances
    monkeypatch.setattr("loratlas.analysis.bootstrap._BATCH_ELEMENTS", 400)
    assert np.array_equal(bootstrap(sums, tokens, seed=0, num_resamples=99).distances, whole)


def test_resamples_without_a_spread_stay_finite():
    sums = np.zeros(12)
    sums[0] = 1
    found = bootstrap(sums, np.ones(12), seed=0)
    assert np.isfinite(found.distances).all()
    low, high = found.interval(0.95)
    assert low < 0 < found.loss < high
