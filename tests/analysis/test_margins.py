import numpy as np
import pytest
from arms import BASE, FULL, TOKENS, arm

from loratlas.analysis.estimates import estimate
from loratlas.analysis.margins import margin


def test_the_gain_is_inside_the_test():
    ours = arm("attention", 2.01)
    found = margin(ours, FULL, BASE, TOKENS, 0.05)
    by_hand = ours.nll - FULL.nll - 0.05 * (BASE - FULL.nll)
    assert found.above.value == pytest.approx(estimate(by_hand, TOKENS).value)
    assert found.above.standard_error == pytest.approx(estimate(by_hand, TOKENS).standard_error)
    base = BASE.sum() / TOKENS.sum()
    assert found.gain.value == pytest.approx(base - 2)
    assert found.width == pytest.approx(0.05 * (base - 2))
    assert found.above.value == pytest.approx(0.01 - found.width)
    assert found.below.value == pytest.approx(0.01 + found.width)
    assert found.p_not_inferior == found.above.p_less
    assert found.p_equivalent == max(found.above.p_less, found.below.p_greater) < 0.05


@pytest.mark.parametrize(
    ("loss", "not_inferior", "equivalent"),
    [(2.0, True, True), (2.2, False, False), (1.8, True, False), (2.05, False, False)],
)
def test_which_ends_it_lies_inside(loss, not_inferior, equivalent):
    # The gain is about 1 nat, 5% of it 0.05.
    found = margin(arm("attention", loss), FULL, BASE, TOKENS, 0.05)
    assert (found.p_not_inferior <= 0.05) is not_inferior
    assert (found.p_equivalent <= 0.05) is equivalent


def test_a_placement_at_the_margin_is_called_inside_as_often_as_it_may():
    """Simulated in ``test_calibration``; here only that the end itself is not inside."""
    base = BASE.sum() / TOKENS.sum()
    found = margin(arm("attention", 2 + 0.05 * (base - 2)), FULL, BASE, TOKENS, 0.05)
    assert found.above.value == pytest.approx(0, abs=1e-12)
    assert found.p_not_inferior == pytest.approx(0.5)


def test_no_gain_is_no_margin():
    found = margin(arm("attention", 2.0), arm("full", 3.2), BASE, TOKENS, 0.05)
    assert found.width is found.p_equivalent is found.p_not_inferior is None
    assert found.gain.value < 0
    assert found.says[0].startswith(
        "full has no gain over the untuned base that could be told from none (-0."
    )
    assert found.says[0].endswith("a share of it is no margin.")


def test_a_gain_that_may_be_chance_is_no_margin():
    loss = BASE.sum() / TOKENS.sum() - 0.01
    found = margin(arm("a", 2.0), arm("full", loss, noise=0.2), BASE, TOKENS, 0.05)
    assert found.gain.value > 0
    assert found.width is None
    assert "could be told from none (0.01 nats per token, one-sided p = 0." in found.says[0]


def test_no_base_and_base_without_numbers():
    missing = margin(FULL, FULL, None, TOKENS, 0.05)
    assert missing.gain is missing.p_equivalent is None
    assert missing.says == (
        "The untuned base was not scored: there is no gain to measure a margin by.",
    )
    broken = margin(arm("a", 2.0), FULL, np.full(60, np.nan), TOKENS, 0.05)
    assert broken.says == (
        "The gain of full over the untuned base cannot be judged.",
        "360 of 360 scores are no numbers.",
    )


def test_one_seed_is_judged_for_itself():
    ours, theirs = arm("attention", 2.0, seeds=(1,)), arm("full", 2.0, seeds=(1,))
    found = margin(ours, theirs, BASE, TOKENS, 0.05)
    assert found.above.scope == "new examples, this seed"
    assert 0 < found.p_equivalent < 1


def test_the_same_placement_twice_is_equivalent():
    found = margin(FULL, FULL, BASE, TOKENS, 0.05)
    assert found.p_equivalent < 1e-6
