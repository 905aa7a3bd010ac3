"""Regular expressions of other people: the same answers as `re`, and an end to the waiting."""

import re
import time

import pytest

from loratlas.errors import PlacementError
from loratlas.placement import patterns
from loratlas.placement.patterns import matches

NAMES = ["model.layers.0.self_attn.q_proj", "model.layers.11.mlp.up_proj", "lm_head"]
# The second half is too involved to be evaluated here and goes to the second interpreter.
EXPRESSIONS = [
    "lm_head",
    r".*\.q_proj",
    r".*\.(q_proj|up_proj)",
    r"(?:.*\.)?(l+m?_?h*e+a*d)+",
    "x*",
]


@pytest.mark.parametrize("whole", [True, False])
def test_both_ways_answer_as_re_does(whole):
    function = re.fullmatch if whole else re.match
    expected = {
        name: [number for number, each in enumerate(EXPRESSIONS) if function(each, name)]
        for name in NAMES
    }
    for chosen in (EXPRESSIONS, EXPRESSIONS[:3]):
        found = matches(chosen, NAMES, field="x", whole=whole)
        numbers = {name: [hit.number for hit in hits] for name, hits in found.items()}
        known = {name: [n for n in each if n < len(chosen)] for name, each in expected.items()}
        assert numbers == known


@pytest.mark.parametrize("expression", ["layers", "(la|lay)+ers"])
def test_the_group_idx_is_returned(expression):
    found = matches([expression], NAMES, field="x", form=r"(?:^|.*?\.){}\.(?P<idx>\d+)\.")
    assert [hit.index for hits in found.values() for hit in hits] == ["0", "11"]


def test_an_expression_that_would_run_for_ever_is_one_message(monkeypatch):
    monkeypatch.setattr(patterns, "TIME_LIMIT_SECONDS", 1.0)
    start = time.monotonic()
    with pytest.raises(PlacementError) as told:
        matches([r"(([a-z_.0-9]*)*)*X"], NAMES, field="target_modules", whole=True)
    assert str(told.value) == (
        "target_modules: '(([a-z_.0-9]*)*)*X' could not be held against 3 names within 1 seconds; "
        "PEFT has no such limit and would hang"
    )
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("expression", ["q_proj[", "(" * 5000, "a{99999999999999999999}"])
def test_an_expression_that_is_none_is_told(expression):
    with pytest.raises(PlacementError, match="is not a valid regular expression"):
        matches([expression], NAMES, field="target_modules")
