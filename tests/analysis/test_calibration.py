"""Intervals and verdicts err as rarely as they say: ``benchmarks/contrasts.py``, small.

Tolerances: a share p of n simulated studies has a standard error of sqrt(p (1 - p) / n); the limits
lie four of them beyond what the benchmark's 4,000 studies a row must show, and what a method
that ignores examples does lies far outside.
"""

import numpy as np
import pytest

from benchmark_modules import load_benchmark

STUDIES = 1000


@pytest.fixture(scope="module")
def truths():
    return load_benchmark("truths")


@pytest.fixture(scope="module")
def benchmark(truths):
    return load_benchmark("contrasts")


def _four_errors(share):
    return 4 * np.sqrt(share * (1 - share) / STUDIES)


@pytest.mark.parametrize("name", ["BALANCED", "SEED_LED", "ROW_LED", "REST_LED", "HEAVY"])
@pytest.mark.parametrize("num_seeds", [3, 6])
def test_intervals_cover_what_they_say(benchmark, truths, name, num_seeds):
    truth, chance = getattr(truths, name), np.random.default_rng(0)
    found = benchmark.coverage(truth, num_seeds, 100, STUDIES, chance)
    assert found["loratlas"] > 0.935 - _four_errors(0.935)
    if truth.gaussian:
        assert found["loratlas"] < 0.97 + _four_errors(0.97)


def test_methods_that_look_at_seeds_alone_do_not(benchmark, truths):
    found = benchmark.coverage(truths.ROW_LED, 6, 100, STUDIES, np.random.default_rng(0))
    assert found["t over seeds"] < 0.7
    assert found["bootstrap over seeds"] < 0.6


def test_simulated_scores_have_the_truth_they_are_said_to_have(truths):
    """The corpus loss is 0 with a standard error of 1, whatever the shape of the effects."""
    for truth in truths.TRUTHS:
        chance = np.random.default_rng(1)
        lengths = truths.tokens(chance, 2000, 60)
        losses = truths.scores(truth, chance, lengths, 1, 4).sum(axis=(1, 2, 3))
        losses /= 4 * lengths.sum(axis=1)
        assert losses.mean() == pytest.approx(0, abs=4 * losses.std() / np.sqrt(2000))
        if not truth.by_length:
            # A variance of 2,000 has a relative error of 3%, with heavy tails of 5%; and a
            # ratio over 60 rows differs from its linear form by 1%.
            assert losses.std() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("at", [(1.0,), (-1.0,)])
def test_equivalence_at_the_end_of_the_margin(benchmark, truths, at):
    found = benchmark.errors(truths.ROW_LED, 4, 100, at, STUDIES, np.random.default_rng(0))
    assert found["margin"] < 0.065 + _four_errors(0.065)
    # A test that never calls anything equivalent would pass the line above.
    assert found["margin"] > 0.05 - _four_errors(0.05)
    assert found["margin, t over seeds"] > 0.2


def test_a_family_of_placements_without_a_difference(benchmark, truths):
    chance = np.random.default_rng(0)
    found = benchmark.errors(truths.BALANCED, 4, 60, (0.0,) * 4, STUDIES, chance)
    assert 0 < found["difference"] < 0.065 + _four_errors(0.065)
