import pytest

from loratlas.errors import StudyError
from loratlas.study.hypothesis import Hypothesis, parse_hypothesis

PLACEMENTS = ("full", "feed_forward", "upper half of 8")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("at least 95% of full", Hypothesis(reference="full", share=0.95)),
        ("at least  97.5 %\n of full", Hypothesis(reference="full", share=0.975)),
        ("at least 100% of upper half of 8", Hypothesis(reference="upper half of 8", share=1)),
        (
            "at least 95% of full with at most 50% of its parameters",
            Hypothesis(reference="full", share=0.95, parameters=0.5),
        ),
    ],
)
def test_what_is_read_and_written(text, expected):
    found = parse_hypothesis(text, "feed_forward", PLACEMENTS)
    assert found == expected
    assert parse_hypothesis(str(found), "feed_forward", PLACEMENTS) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "95% of full",
            "cannot be read; write 'at least 95% of full' or 'at least 95% of full with",
        ),
        ("at least 0.95 of full", "cannot be read"),
        ("at most 95% of full", "cannot be read"),
        ("at least 95% of full, half the size", "names full, half the size, which is no placement"),
        (
            "at least 95% of ful",
            r"no placement of the study \(did you mean full\?\); there are full,",
        ),
        ("at least 95% of feed_forward", "holds it against itself; name another placement"),
        ("at least 0% of full", "asks for 0% of the gain; allowed: above 0% and at most 100%"),
        ("at least 101% of full", "asks for 101% of the gain"),
        (
            "at least 95% of full with at most 0% of its parameters",
            "asks for 0% of the parameters",
        ),
    ],
)
def test_what_cannot_be_read(text, message):
    with pytest.raises(StudyError, match=message):
        parse_hypothesis(text, "feed_forward", PLACEMENTS)
