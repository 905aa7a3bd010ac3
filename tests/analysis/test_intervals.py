import math

import numpy as np
import pytest
from scipy import stats

from loratlas.analysis.intervals import mean_interval


def test_the_closed_form_for_two_values():
    # With two values the mean is off by t(0.975, 1) · |a - b| / 2, and t(0.975, 1) = 12.7062.
    low, high = mean_interval([1.0, 2.0])
    assert low == pytest.approx(1.5 - 12.7062 / 2, abs=1e-4)
    assert high == pytest.approx(1.5 + 12.7062 / 2, abs=1e-4)


def test_it_is_scipys():
    values = [0.3, 0.1, 0.7, 0.2, 0.9]
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert mean_interval(values, 0.9) == pytest.approx([theirs.low, theirs.high])


def test_what_has_no_interval():
    assert mean_interval([]) is None
    assert mean_interval([1.0]) is None
    assert mean_interval([1.0, math.nan]) is None
    assert mean_interval([1.0, math.inf]) is None
    assert mean_interval([2.5, 2.5, 2.5]) == [2.5, 2.5]


def test_it_covers_what_it_says():
    chance = np.random.default_rng(0)
    draws = chance.normal(3.0, 2.0, size=(2000, 4))
    hits = sum(low <= 3.0 <= high for low, high in map(mean_interval, draws.tolist()))
    # 2,000 binomial draws at 0.95 have a standard error of 0.5%: four of them on each side.
    assert 0.93 < hits / 2000 < 0.97
