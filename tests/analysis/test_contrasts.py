import numpy as np
import pytest
from arms import FULL, TOKENS, arm

from loratlas.analysis.contrasts import Arm, contrast, pair
from loratlas.analysis.estimates import estimate


def test_it_is_the_difference_of_corpus_losses():
    ours = arm("attention", 2.1)
    found = contrast(ours, FULL, TOKENS)
    assert (found.placement, found.baseline, found.seeds) == ("attention", "full", tuple(range(6)))
    assert found.estimate == estimate(ours.nll - FULL.nll, TOKENS)
    # `arm` takes the mean of its noise out.
    assert found.estimate.value == pytest.approx(0.1)
    assert found.sign_flip.p_value == 1 / 32
    assert found.says == ()


def test_pairing_takes_out_what_both_share():
    shared = np.random.default_rng(0).normal(0, 1, size=(6, 60)) * TOKENS
    ours, theirs = arm("attention", 2.1), FULL
    with_noise = [Arm(name=a.name, seeds=a.seeds, nll=a.nll + shared) for a in (ours, theirs)]
    plain, noisy = contrast(ours, theirs, TOKENS), contrast(*with_noise, TOKENS)
    assert noisy.estimate.standard_error == pytest.approx(plain.estimate.standard_error)


def test_seeds_are_paired_by_name_and_those_alone_are_named():
    ours, theirs = arm("attention", 2.1, seeds=(5, 2, 0, 7)), arm("full", 2.0, seeds=(0, 1, 2, 3))
    both = pair(ours, theirs)
    assert both.seeds == (0, 2)
    assert np.array_equal(both.ours, ours.nll[[2, 1]])
    assert np.array_equal(both.theirs, theirs.nll[[0, 2]])
    assert contrast(ours, theirs, TOKENS).says[:2] == (
        "Left out: seeds 5, 7 of attention, which full does not have.",
        "Left out: seeds 1, 3 of full, which attention does not have.",
    )


def test_an_arm_that_failed():
    failed = Arm(name="attention", seeds=(), nll=np.empty((0, 60)))
    found = contrast(failed, arm("full", 2.0, seeds=(4,)), TOKENS)
    assert found.estimate.value is found.sign_flip is None
    assert found.says == (
        "Left out: seed 4 of full, which attention does not have.",
        "There is no seed to compare.",
    )


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_named_and_never_left_out(wrong):
    ours, theirs = arm("attention", 2.1), arm("full", 2.0)
    ours.nll[3, :2] = wrong
    theirs.nll[3, 1] = wrong
    found = contrast(ours, theirs, TOKENS)
    assert found.estimate.value is None
    assert found.says == (
        "Seed 3 of attention: 2 of 60 scores are no numbers.",
        "Seed 3 of full: 1 of 60 scores are no numbers.",
    )


def test_rows_without_scored_tokens_take_no_part():
    ours = arm("attention", 2.1)
    tokens = np.where(np.arange(60) < 50, TOKENS, 0)
    found = contrast(ours, FULL, tokens).estimate
    assert found == estimate(ours.nll[:, :50] - FULL.nll[:, :50], TOKENS[:50])


def test_wrong_shapes():
    with pytest.raises(ValueError, match=r"full: scores of shape \(2, 3\) for 1 seeds"):
        Arm(name="full", seeds=(0,), nll=np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"full: a seed stands twice in \[1, 1\]"):
        Arm(name="full", seeds=(1, 1), nll=np.zeros((2, 3)))
    with pytest.raises(ValueError, match="a scored 2 examples, b 3; a contrast needs the same"):
        pair(
            Arm(name="a", seeds=(0,), nll=np.zeros((1, 2))),
            Arm(name="b", seeds=(0,), nll=np.zeros((1, 3))),
        )
