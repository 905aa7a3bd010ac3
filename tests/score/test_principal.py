"""Incremental principal components beside an exact decomposition, and beside PEFT's."""

import numpy as np
import pytest
import torch
from peft.utils.incremental_pca import IncrementalPCA

from loratlas.score.principal import PrincipalComponents


def vectors(num=200, width=24, decay=0.8, seed=0, shift=3.0):
    """Vectors away from zero, whose directions have variances that decay."""
    chance = torch.Generator().manual_seed(seed)
    drawn = torch.randn(num, width, generator=chance)
    turn = torch.linalg.qr(torch.randn(width, width, generator=chance)).Q
    return drawn * decay ** torch.arange(width) @ turn + shift


def exact(given):
    """Shares of the variance by all vectors at once, in float64."""
    centred = given.double() - given.double().mean(0)
    squares = torch.linalg.svdvals(centred).square()
    return (squares / squares.sum()).numpy()


def components(chunks, count):
    found = PrincipalComponents(count)
    for chunk in chunks:
        found.add(chunk)
    return found


@pytest.mark.parametrize("size", [1, 7, 50, 200])
def test_with_every_direction_chunks_do_not_matter(size):
    given = vectors()
    found = components(given.split(size), count=24)
    # Sums in float32, taken anew with each chunk: 200 times, for the smallest.
    assert found.ratios() == pytest.approx(exact(given), abs=1e-5)
    assert found.ratios().sum() == pytest.approx(1, abs=1e-4)
    assert found.num_vectors == 200


@pytest.mark.parametrize("size", [40, 200])
def test_the_first_directions_of_many(size):
    given = vectors(width=64, decay=0.7)
    found = components(given.split(size), count=6)
    assert found.ratios() == pytest.approx(exact(given)[:6], rel=2e-2)
    assert found.directions.shape == (6, 64)
    assert found.directions @ found.directions.T == pytest.approx(torch.eye(6), abs=1e-5)


def test_pefts_components_are_the_same():
    given = vectors(width=64, decay=0.7)
    theirs = IncrementalPCA(n_components=6, lowrank=True, lowrank_seed=42)
    for chunk in given.split(40):
        theirs.partial_fit(chunk)
    found = components(given.split(40), count=6)
    # The same sums, some of them in float64 there.
    shares = theirs.explained_variance_ratio_.numpy()
    assert found.ratios() == pytest.approx(shares, rel=1e-4)
    alike = torch.nn.functional.cosine_similarity(found.directions, theirs.components_).abs()
    assert alike.min() > 1 - 1e-4


@pytest.mark.parametrize("value", [0.0, 2.0, 0.1, 1e-20, 1e10])
def test_vectors_of_one_value_have_no_direction(value):
    """Their means are off by rounding, which is no direction."""
    one = vectors(num=1, width=8) * value
    found = components([one.repeat(5, 1), one.repeat(300, 1), one.repeat(7, 1)], count=4)
    assert found.ratios().tolist() == [0] * 4


@pytest.mark.parametrize("shift", [0, 30, 1000])
def test_how_far_from_zero_vectors_lie_is_no_direction_either(shift):
    given = vectors(shift=shift)
    # A distance of 1000 leaves three digits of seven to deviations of about 1.
    assert components(given.split(50), count=24).ratios() == pytest.approx(exact(given), abs=1e-3)


def test_one_vector_has_no_variance():
    assert components([torch.ones(1, 8)], count=4).ratios().tolist() == [0]


def test_nothing_added_changes_nothing():
    given = vectors()
    once = components([given], count=4).ratios()
    assert np.array_equal(components([given[:0], given, given[:0]], count=4).ratios(), once)
    assert len(PrincipalComponents(4).ratios()) == 0


def test_nobody_elses_chance_is_used():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = components([vectors(width=64)], count=6).ratios()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert np.array_equal(components([vectors(width=64)], count=6).ratios(), first)
