import numpy as np
import pytest
from arms import BASE, FULL, TOKENS, arm

from loratlas.analysis.margins import margin
from loratlas.analysis.retained import retained


def _kept(ours, theirs=FULL, share=0.05):
    return retained(ours, theirs, BASE, TOKENS, margin(ours, theirs, BASE, TOKENS, share))


def test_the_share_and_the_bound_that_the_test_just_rejects():
    ours = arm("attention", 2.1)
    kept = _kept(ours)
    base = BASE.sum() / TOKENS.sum()
    assert kept.share == pytest.approx((base - 2.1) / (base - 2))
    assert kept.at_least < kept.share
    at = margin(ours, FULL, BASE, TOKENS, 1 - kept.at_least)
    assert at.p_not_inferior == pytest.approx(0.05, abs=1e-4)


def test_fiellers_closed_form():
    # With every row the same, only seeds vary, and Fieller's quadratic for paired means holds.
    seeds, base = (0, 1, 2, 3), np.full(60, 3.0) * TOKENS
    chance = np.random.default_rng(5)
    theirs = 2 + chance.normal(0, 0.05, size=(4, 1))
    ours = 2.1 + chance.normal(0, 0.05, size=(4, 1))
    arms = [arm("a", 2.0, seeds=seeds), arm("b", 2.0, seeds=seeds)]
    for each, loss in zip(arms, (ours, theirs), strict=True):
        each.nll[:] = loss * TOKENS
    kept = retained(*arms, base, TOKENS, margin(*arms, base, TOKENS, 0.05))
    x, y = (3 - ours)[:, 0], (3 - theirs)[:, 0]
    t = 2.353363  # t(0.95, 3)
    cov = np.cov(x, y) / 4
    a = y.mean() ** 2 - t**2 * cov[1, 1]
    b = x.mean() * y.mean() - t**2 * cov[0, 1]
    c = x.mean() ** 2 - t**2 * cov[0, 0]
    assert kept.at_least == pytest.approx((b - np.sqrt(b**2 - a * c)) / a, abs=1e-5)


def test_the_same_placement_keeps_all_of_it():
    kept = _kept(FULL)
    assert kept.share == pytest.approx(1)
    assert kept.at_least == pytest.approx(1, abs=1e-6)


def test_what_has_no_share_and_no_bound():
    assert _kept(arm("a", 2.0), arm("full", 3.5)) is None
    alone = _kept(arm("a", 2.1, seeds=(0,)), arm("full", 2.0, seeds=(0,)))
    assert alone.share == pytest.approx(0.9, abs=0.02)
    assert alone.at_least is None
