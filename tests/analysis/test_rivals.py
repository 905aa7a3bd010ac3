import numpy as np
import pytest
from arms import BASE, FULL, TOKENS, arm
from decisions import losses, simulated

from loratlas.analysis.contrasts import Arm, contrast
from loratlas.analysis.rivals import near_best, rivals

NUM_STUDIES = 400
# Three standard errors of a share of 5% in 400 studies.
MOST_ERRORS = 0.05 + 3 * (0.05 * 0.95 / NUM_STUDIES) ** 0.5


def _rivals(arms, **options):
    return rivals(list(arms.by_name.values()), arms.num_tokens, **options)


def test_each_pair_is_the_contrast_of_its_two_placements():
    one, other = arm("one", 2.1), arm("other", 2.0)
    found = rivals([one, other], TOKENS)
    expected = contrast(one, other, TOKENS, confidence=0.9).estimate
    assert found.estimates["one", "other"] == expected
    assert found.estimates["other", "one"].value == -expected.value
    assert found.estimates["other", "one"] == contrast(other, one, TOKENS, confidence=0.9).estimate


def test_the_level_is_shared_by_the_comparisons_of_one_placement():
    arms = losses({"a": 2.0, "b": 2.02, "c": 2.2}, noise=0.02)
    found = _rivals(arms)
    assert found.level == 0.025
    p = found.estimates["b", "a"].p_greater
    assert found.p_above("b") == pytest.approx(min(1, 2 * p))
    assert found.leader == "a"
    assert found.ruled_out_by("c") == ("a", "b")
    assert ("b" in found.may_be_best) == (p > 0.025)
    low, _ = found.estimates["b", "a"].interval
    assert (low > 0) == found.above("b", "a")


@pytest.mark.parametrize("spread", [0.0, 0.05])
def test_the_best_is_rarely_ruled_out(spread):
    """Of six placements, equal or close, the true best stays in at least 95% of studies."""
    chance = np.random.default_rng(5)
    truths = {f"p{index}": 2 + spread * index for index in range(6)}
    lost = sum(
        "p0" not in _rivals(simulated(chance, truths, num_examples=20)).may_be_best
        for _ in range(NUM_STUDIES)
    )
    assert lost / NUM_STUDIES <= MOST_ERRORS


def test_what_lies_a_tolerance_above_the_best_is_rarely_called_near():
    """The gain is 1, the tolerance 0.1: `far` lies exactly there, and two others are the best."""
    chance = np.random.default_rng(6)
    truths = {"full": 2.0, "other": 2.0, "far": 2.1}
    wrong = 0
    for _ in range(NUM_STUDIES):
        arms = simulated(chance, truths)
        chosen = list(arms.by_name.values())
        found, says = near_best(chosen, arms.baseline_arm, arms.base_nll, arms.num_tokens, 0.1)
        assert says == ()
        wrong += found["far"] <= 0.05
    assert wrong / NUM_STUDIES <= MOST_ERRORS


def test_near_the_best_whichever_that_is():
    arms = [FULL, arm("close", 2.01, noise=0.001), arm("far", 2.2)]
    found, _ = near_best(arms, FULL, BASE, TOKENS, 0.05)
    assert found["close"] < 0.05 < found["far"]
    # One that is better than the baseline is the best that the others are held against.
    found, _ = near_best([*arms, arm("best", 1.8)], FULL, BASE, TOKENS, 0.05)
    assert found["best"] < 0.05 < found["close"]


@pytest.mark.parametrize(
    ("baseline", "base_nll", "said"),
    [
        (None, BASE, "The baseline has no scores"),
        (FULL, None, "The untuned base was not scored"),
        (arm("idle", 3.0, noise=0.1), BASE, "idle has no gain over the untuned base"),
    ],
)
def test_without_a_gain_there_is_no_tolerance(baseline, base_nll, said):
    found, says = near_best([FULL, arm("close", 2.01)], baseline, base_nll, TOKENS, 0.05)
    assert set(found.values()) == {None}
    assert says[0].startswith(said)


def test_one_common_seed_tells_nothing():
    found = rivals([arm("a", 2.0, seeds=(0, 1)), arm("b", 9.0, seeds=(1, 2))], TOKENS)
    assert found.estimates["b", "a"].value == pytest.approx(7, abs=0.1)
    assert found.estimates["b", "a"].says == ("a and b have 1 seeds in common; two are needed.",)
    assert found.may_be_best == ("a", "b")
    assert not found.any_told
    assert found.p_above("b") is None


def test_the_same_scores_are_the_same_placement():
    twin = Arm(name="twin", seeds=FULL.seeds, nll=FULL.nll)
    found = rivals([FULL, twin], TOKENS)
    assert found.any_told
    assert found.may_be_best == ("full", "twin")
    assert not found.told_apart("full", "twin")


def test_a_placement_without_a_seed_is_refused():
    with pytest.raises(ValueError, match="without a seed"):
        rivals([FULL, Arm(name="none", seeds=(), nll=np.zeros((0, len(TOKENS))))], TOKENS)
