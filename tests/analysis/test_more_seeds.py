import numpy as np
import pytest
from scipy import stats

from loratlas.analysis.components import mean_squares
from loratlas.analysis.estimates import Estimate
from loratlas.analysis.more_seeds import more_seeds
from loratlas.analysis.power import power_of_paired_t

ROWS = 40


def _difference(seeds, examples=0.0, value=0.05):
    """Six seeds whose values have exactly this deviation, and a variance of examples."""
    around = np.array([-1.0, 1, -1, 1, -1, 1]) * np.sqrt(5 / 6) * seeds
    by_seeds = seeds**2 / 6
    variance = by_seeds + examples
    return Estimate(
        value=value,
        scope="new seeds and new examples",
        p_less=0.9,
        p_greater=0.1,
        standard_error=float(np.sqrt(variance)),
        freedom=float(variance / (by_seeds / 5 + examples / (ROWS - 1))),
        per_seed=tuple((value + around).tolist()),
        num_seeds=6,
        num_examples=ROWS,
    )


@pytest.mark.parametrize("seeds", [0.08, 0.1, 0.15])
def test_without_a_part_of_examples_it_is_the_paired_t_test(seeds):
    found = more_seeds(_difference(seeds), 0.025)
    assert found.in_all == 6 + found.more
    power = [
        power_of_paired_t(0.05 / seeds, count, alpha=0.05)
        for count in (found.in_all - 1, found.in_all)
    ]
    # The two-sided test also finds a difference the other way round, next to never.
    assert power[0] < 0.8 <= power[1] + 1e-4


def test_examples_set_a_limit_that_seeds_do_not_lift():
    found = more_seeds(_difference(0.05, examples=0.03**2), 0.025)
    assert found.outcome == "examples"
    assert found.more is None
    # z = 5/3 with 39 degrees of freedom, against a critical value of 2.02.
    assert 0.3 < found.most_power < 0.4


def test_too_many_and_unknown():
    assert more_seeds(_difference(2.0), 0.025).outcome == "too many"
    assert more_seeds(_difference(0.1, value=0.0), 0.025).outcome == "unknown"
    one = Estimate(value=0.1, num_seeds=1, num_examples=9)
    assert more_seeds(one, 0.025).outcome == "unknown"


def test_so_many_seeds_find_it_in_four_of_five_studies():
    """The count is taken from a study whose difference and spread are the truth, then tried."""
    chance, level, gap = np.random.default_rng(2), 0.025, 0.035
    planned = more_seeds(_difference(np.sqrt(0.03**2 + 0.15**2 / ROWS), 0.07**2 / ROWS, gap), level)
    assert planned.outcome == "enough"
    size = (2_000, planned.in_all, ROWS)
    noise = (
        chance.normal(0, 0.03, (*size[:2], 1))
        + chance.normal(0, 0.07, (size[0], 1, ROWS))
        + chance.normal(0, 0.15, size)
    )
    squares = mean_squares(10.0 * (gap + noise), np.full((size[0], ROWS), 10.0))
    at = squares.estimate / np.sqrt(squares.variance)
    power = float((stats.t.sf(at, squares.freedom) <= level).mean())
    assert 0.75 < power < 0.87
