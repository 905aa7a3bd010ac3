import pytest
from arms import BASE, FULL, TOKENS, arm

from loratlas.analysis.claims import evidence, settle
from loratlas.analysis.margins import margin
from loratlas.study.hypothesis import Hypothesis

CLAIM = Hypothesis(reference="full", share=0.95)
HALF = Hypothesis(reference="full", share=0.95, parameters=0.5)


def _settled(loss, claim=CLAIM, *, theirs=FULL, seeds=range(6), parameters=None):
    ours = arm("feed_forward", loss, seeds=seeds)
    found = evidence(claim, ours, theirs, BASE, TOKENS, parameters=parameters)
    return settle([found])[0]


def test_it_is_the_one_sided_test_of_its_own_margin():
    claim = _settled(2.0)
    within = margin(arm("feed_forward", 2.0), FULL, BASE, TOKENS, 1 - 0.95)
    assert claim.p_supported == within.p_not_inferior < 0.05
    assert claim.p_contradicted == pytest.approx(1 - claim.p_supported)
    assert claim.outcome == "supported"
    assert claim.says[0].startswith(
        "feed_forward: 'at least 95% of full' is supported (one-sided p = "
    )
    assert claim.says[1].startswith("It keeps 100% of full's gain, at least 9")


@pytest.mark.parametrize(
    ("loss", "outcome"), [(1.9, "supported"), (2.05, "cannot tell"), (2.2, "contradicted")]
)
def test_outcomes(loss, outcome):
    assert _settled(loss).outcome == outcome


@pytest.mark.parametrize(
    ("parameters", "outcome", "said"),
    [
        (0.5, "supported", "It has 50% of its parameters; 50% are allowed."),
        (0.62, "contradicted", "It has 62% of its parameters; 50% are allowed."),
        (None, "cannot tell", "Its parameters are not known, so that part of the claim is open."),
    ],
)
def test_parameters_are_part_of_the_claim(parameters, outcome, said):
    claim = _settled(2.0, HALF, parameters=parameters)
    assert (claim.outcome, claim.says[-1]) == (outcome, said)


def test_one_seed_and_no_gain_decide_nothing():
    one = _settled(2.5, seeds=(0,), theirs=arm("full", 2.0, seeds=(0,)))
    assert (one.outcome, one.p_supported) == ("cannot tell", None)
    none = _settled(2.0, theirs=arm("full", 3.5))
    assert (none.outcome, none.evidence.retained) == ("cannot tell", None)
    assert none.says[0] == (
        "feed_forward: 'at least 95% of full' can be neither supported nor contradicted."
    )
    assert "full has no gain over the untuned base" in none.says[1]


def test_claims_are_corrected_together():
    found = [
        evidence(CLAIM, arm(name, 2.02), FULL, BASE, TOKENS) for name in ("one", "two", "three")
    ]
    together, alone = settle(found), [settle([each])[0] for each in found]
    smallest = min(alone, key=lambda claim: claim.p_supported)
    place = alone.index(smallest)
    assert together[place].p_supported == pytest.approx(min(1, 3 * smallest.p_supported))
