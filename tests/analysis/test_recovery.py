"""Precision at k against every way to break ties, and against what chance gives."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loratlas.analysis.recovery import places, precision


@st.composite
def scored(draw):
    """Few values, so that ties are many, and which of up to five sites are wanted."""
    values = draw(st.lists(st.integers(0, 2), min_size=1, max_size=5))
    wanted = draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)).filter(any))
    return np.array(values, dtype=float), np.array(wanted)


@given(scored())
def test_a_precision_is_the_mean_over_all_ways_to_break_ties(case):
    values, wanted = case
    count = int(wanted.sum())
    shares = [
        wanted[sorted(order, key=lambda site: -values[site])[:count]].mean()
        for order in permutations(range(len(values)))
    ]
    assert precision(values, wanted) == pytest.approx(np.mean(shares))


def test_who_knows_nothing_has_what_chance_gives():
    wanted = np.array([True, False, False, True, False, False])
    assert precision(np.ones(6), wanted) == pytest.approx(2 / 6)
    chance = np.random.default_rng(0)
    drawn = [precision(chance.random(6), wanted) for _ in range(2000)]
    # A precision has a standard deviation of about 0.3: four standard errors are 0.03.
    assert np.mean(drawn) == pytest.approx(2 / 6, abs=0.03)


def test_places_are_shared_by_sites_of_one_value():
    values = np.array([5.0, 3.0, 3.0, 1.0, 9.0])
    assert places(values, [0, 1, 2, 3, 4]) == [2, 3, 3, 5, 1]
    assert places(values, [4, 0]) == [1, 2]
