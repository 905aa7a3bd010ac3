"""Scores turned upside down: the same numbers, with other owners."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats
from scored_subjects import Said, subject_of

from loratlas.errors import TrialError
from loratlas.score.inverted import Inverted, opposites
from loratlas.score.scorer import Found, Needs


@pytest.fixture
def subject(base, anatomy):
    """Twelve sites of the tiny GPT-2."""
    return subject_of(base, anatomy, ())


def test_the_order_is_the_opposite_and_the_numbers_stay(subject):
    given = np.random.default_rng(0).standard_normal(len(subject.sites))
    found = Inverted(Said(given)).measure(subject).values
    assert sorted(found) == sorted(given)
    assert stats.kendalltau(given, found).statistic == pytest.approx(-1)
    assert Inverted(Said(found)).measure(subject).values == pytest.approx(given)


def test_sites_of_one_value_stay_together():
    # As with types of module: four, two and one site of three types.
    given = np.array([3.0, 1.0, 3.0, 2.0, 3.0, 2.0, 3.0])
    assert given[opposites(given)].tolist() == [1, 3, 1, 2, 1, 2, 1]
    # Equal ones have nobody opposite, nor has the middle one of three.
    assert opposites(np.ones(4)).tolist() == [0, 1, 2, 3]
    assert opposites(np.array([5.0, 4.0, 6.0, 5.0])).tolist() == [0, 2, 1, 3]


def test_curves_and_errors_go_with_the_values(subject):
    count = len(subject.sites)
    given = np.arange(count, dtype=float)
    found = Inverted(
        Said(
            Found(
                values=given,
                stderr=given / 10,
                curves=[np.full(40, value) for value in given],
                halves=np.stack([given, given[::-1]]),
                num_tokens=np.arange(count),
                num_forwards=5,
                notes=("a note",),
            )
        )
    ).measure(subject)
    assert found.stderr.tolist() == (given[::-1] / 10).tolist()
    assert [curve[0] for curve in found.curves] == given[::-1].tolist()
    # No site of the tiny model has a rank above 32.
    assert {len(curve) for curve in found.curves} == {32}
    # What the halves agreed on, they agree on still.
    assert found.halves.tolist() == [given[::-1].tolist(), given.tolist()]
    assert found.num_tokens.tolist() == list(range(count))
    # A note may name sites, which have another's score now.
    assert (found.num_forwards, found.notes) == (5, ("Of said itself: a note",))


def test_it_is_what_the_method_is():
    method = Said(np.zeros(1), needs=Needs(gradients=True), reason="no gradient")
    method.higher_is_better = False
    inverted = Inverted(method)
    assert inverted.name == "inverted:said"
    assert inverted.why_not(None) == "no gradient"
    assert (inverted.needs, inverted.unit) == (method.needs, method.unit)
    assert inverted.higher_is_better is False
    assert Inverted(inverted).name == "inverted:inverted:said"


def test_what_the_method_refuses_is_refused(subject):
    def fail(subject):
        raise TrialError("a loss is no number")

    with pytest.raises(TrialError, match="a loss is no number"):
        Inverted(Said(fail)).measure(subject)


@pytest.mark.parametrize("seed", range(5))
def test_any_order_is_reversed_whatever_ties_there_are(seed):
    given = np.random.default_rng(seed).integers(0, 6, size=30).astype(float)
    found = given[opposites(given)]
    order = np.argsort(given, kind="stable")
    for before, after in pairwise(order):
        assert np.sign(given[after] - given[before]) == -np.sign(found[after] - found[before])
