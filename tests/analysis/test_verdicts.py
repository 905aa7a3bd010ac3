import math

import numpy as np
import pytest
from arms import BASE, FULL, TOKENS, arm

from loratlas.analysis.contrasts import Arm
from loratlas.analysis.verdicts import compare, in_words

# The gain is about 1 nat per token, the margin 5% of it.


def _judged(*arms, **options):
    return compare(arms, FULL, BASE, TOKENS, **options)


@pytest.mark.parametrize(
    ("loss", "noise", "verdict", "holds"),
    [
        (2.2, 0.01, "worse", ("worse",)),
        (1.8, 0.01, "better", ("better", "not inferior")),
        (2.0, 0.01, "equivalent", ("equivalent", "not inferior")),
        (2.02, 0.001, "equivalent", ("equivalent", "not inferior", "worse")),
        (1.98, 0.001, "equivalent", ("equivalent", "better", "not inferior")),
        (1.97, 0.03, "not inferior", ("not inferior",)),
        (2.05, 0.05, "cannot tell", ()),
    ],
)
def test_every_verdict(loss, noise, verdict, holds):
    full = arm("full", 2.0, noise=noise)
    (found,) = compare([arm("attention", loss, noise=noise)], full, BASE, TOKENS)
    assert (found.verdict, found.holds) == (verdict, holds)


def test_holm_over_the_placements_of_each_question():
    arms = [arm(name, 2.02, noise=0.02) for name in ("a", "bb", "ccc")]
    alone = [_judged(each)[0] for each in arms]
    together = _judged(*arms)
    for question in ("p_difference", "p_equivalent", "p_not_inferior"):
        raw = [getattr(each, question) for each in alone]
        adjusted = [getattr(each, question) for each in together]
        assert min(adjusted) == pytest.approx(min(1, 3 * min(raw)))
        assert max(adjusted) >= max(raw)
    assert together[0].contrast == alone[0].contrast


def test_one_seed_gives_figures_and_no_verdict_and_takes_no_part_in_the_family():
    one, many = arm("one", 2.5, seeds=(0,)), arm("many", 2.2)
    judged = _judged(one, many)
    assert judged[0].verdict == "cannot tell"
    assert judged[0].p_difference is judged[0].p_equivalent is judged[0].p_not_inferior is None
    assert judged[0].contrast.estimate.p_value < 0.01
    assert "One seed: the interval is for this seed alone" in in_words(judged[0])
    assert judged[1] == _judged(many)[0]


def test_in_words():
    worse, alike = _judged(arm("attention", 2.2), arm("feed_forward", 2.02, noise=0.001))
    assert in_words(worse).startswith(
        "attention is worse than full (difference +0.2 nats per token, interval +0.1"
    )
    assert in_words(worse).endswith(", p < 0.0001).")
    assert in_words(alike).startswith(
        "feed_forward and full are equivalent, within 5% of full's gain (difference +0.02"
    )


def test_a_difference_that_is_there_and_does_not_matter():
    full = arm("full", 2.0, noise=0.001)
    (found,) = compare([arm("a", 2.02, noise=0.001)], full, BASE, TOKENS)
    assert in_words(found).endswith("It is worse, but by less than the margin.")


def test_without_a_baseline_nothing_can_be_told():
    (found,) = compare([FULL], None, BASE, TOKENS)
    assert (found.verdict, found.contrast.baseline) == ("cannot tell", None)
    assert in_words(found) == (
        "full: no difference can be given. "
        "No baseline was scored: there is nothing to hold it against."
    )


def test_a_baseline_that_failed():
    failed = Arm(name="full", seeds=(), nll=np.empty((0, 60)))
    (found,) = compare([arm("a", 2.0)], failed, BASE, TOKENS)
    assert found.verdict == "cannot tell"
    assert in_words(found) == (
        "a: no difference can be given. "
        "Left out: seeds 0, 1, 2, 3, 4, 5 of a, which full does not have. "
        "There is no seed to compare. The gain of full over the untuned base cannot be judged."
    )


def test_without_a_gain_better_and_worse_can_still_be_told():
    (found,) = compare([arm("a", 2.5)], arm("full", 3.1), BASE, TOKENS)
    assert found.holds == ("better",)
    assert "full has no gain over the untuned base" in found.says[0]


def test_the_same_scores_twice():
    (found,) = _judged(Arm(name="copy", seeds=FULL.seeds, nll=FULL.nll))
    assert found.verdict == "equivalent"
    assert found.p_difference is None
    assert "the difference is exactly zero" in found.says[0]


def test_one_example_and_scores_that_are_no_numbers():
    one = [Arm(name=n, seeds=(0, 1), nll=np.array([[2.0], [v]])) for n, v in (("a", 1), ("b", 3))]
    (found,) = compare(one[:1], one[1], np.array([9.0]), np.array([2]))
    assert found.verdict == "cannot tell"
    assert found.says[0] == "One example has no spread: nothing can be said about others."
    broken = arm("a", 2.0)
    broken.nll[0, 0] = math.nan
    (found,) = _judged(broken)
    assert found.verdict == "cannot tell"
    assert "Seed 0 of a: 1 of 60 scores are no numbers." in in_words(found)
