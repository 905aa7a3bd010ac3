from collections.abc import Callable
from pathlib import Path

import pytest

from loratlas.errors import NotYetError, StudyError
from loratlas.study.spec import parse_study

Refusal = Callable[..., str]
RANK = "a rank is an integer from 1 up (to 65536)"
PLACEMENT = "a placement is a rule such as `attention`, {rule: ...}, or {parts: [...]}"
ONE_OR_MORE = "at least one is needed"


@pytest.mark.parametrize("name", ['"a\\nb"', f"{'x' * 65}", '" "', '"a "', '"\\u202Ea"'])
def test_placement_names_can_be_printed(refusal: Refusal, name: str):
    text = refusal(("full: all", f"full: all\n  {name}: router"))
    assert text.startswith("study.yaml:14: placements.")
    assert ": the name of a placement is 1 to 64 characters that can be printed" in text


def test_placement_names_differ_by_more_than_case(refusal: Refusal):
    assert refusal(("attention: attention", "FULL: attention")) == (
        "study.yaml:14: placements.FULL: is full on line 13 in another case; choose another name"
    )


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("full:", f"13: placements.full: nothing is given; {PLACEMENT}"),
        ('full: ""', f'13: placements.full: "" is empty; {PLACEMENT}'),
        ("full: [all]", f"13: placements.full: a list is not text; {PLACEMENT}"),
        ("full: 3", f"13: placements.full: 3 is not text (put quotes around it); {PLACEMENT}"),
        (
            "full: {parts: []}",
            f"13: placements.full.parts: a list without an entry; {ONE_OR_MORE}",
        ),
        (
            "full: {parts: [{rule: attention, rank: 0}]}",
            f"13: placements.full.parts[0].rank: 0 is too small; {RANK}",
        ),
        (
            "full: {rule: names(c_attn, c_proj)}",
            "13: placements.full.c_proj): this key has no value; quote this rule, because it "
            'holds a comma: "names(c_attn, c_proj)"',
        ),
        (
            "full: {rule: all @ layers(0, 3, 8..11), match: none}",
            "13: placements.full.3: this key has no value; quote this rule, because it holds a "
            'comma: "all @ layers(0, 3, 8..11)"',
        ),
        (
            "full: {parts: [{rule: names(a, b), rank: 4}, {rule: attention}]}",
            "13: placements.full.parts[0].b): this key has no value; quote this rule, because it "
            'holds a comma: "names(a, b)"',
        ),
    ],
)
def test_placements(refusal: Refusal, written: str, message: str):
    assert refusal(("full: all", written)) == f"study.yaml:{message}"


def test_a_rule_torn_apart_between_placements():
    text = (
        "name: a\nmodel: demo:gpt2\ndata: {source: a, format: text}\n"
        "placements: {full: names(c_attn, c_proj), attention: attention}\n"
    )
    with pytest.raises(StudyError) as caught:
        parse_study(text, Path("study.yaml"))
    assert str(caught.value) == (
        "study.yaml:4: placements.c_proj): this key has no value; quote this rule, because it "
        'holds a comma: "names(c_attn, c_proj)"'
    )


def test_a_rule_that_cannot_be_read_points_at_the_line_of_the_file(refusal: Refusal):
    text = refusal(("all @ layers(50%..)", "feed-forward @ layers(50%..)"))
    assert text.startswith(
        "study.yaml:15: placements.upper_half: unknown word feed-forward "
        "(did you mean feed_forward?)"
    )
    assert text.endswith("in the rule: feed-forward @ layers(50%..)")
    assert "\n" not in text


def test_an_endless_rule_is_no_recursion_error(refusal: Refusal):
    text = refusal(("full: all", f"full: {' | '.join(['all'] * 2000)}"))
    assert text.startswith("study.yaml:13: placements.full: the rule has more than 150 operators")


def test_a_study_without_placements(refusal: Refusal, example: str):
    text = "name: a\nmodel: demo:gpt2\ndata: {source: a, format: text}\nplacements: {}\n"
    with pytest.raises(StudyError) as caught:
        parse_study(text, Path("study.yaml"))
    assert str(caught.value) == (
        f"study.yaml:4: placements: a mapping without an entry; {ONE_OR_MORE}"
    )
    misspelt = refusal(("placements:", "placement:"), ("baseline: full\n", ""))
    assert misspelt.startswith(
        "study.yaml:12: placement: this key is not known (did you mean placements?)"
    )
    assert "\n" not in misspelt


LATER = [
    (
        ("margin: 5%", "margin: 5%\nsearch: {trials: 20}"),
        "37: search: a search over placements is not yet served by this version",
    ),
]


@pytest.mark.parametrize(("change", "message"), LATER)
def test_what_a_later_version_serves(edit: Callable[..., str], change, message: str):
    with pytest.raises(NotYetError) as caught:
        parse_study(edit(change), Path("study.yaml"))
    assert str(caught.value) == f"study.yaml:{message}"


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ('{atention: "at least 95% of full"}', "atention is not one of the placements (did you"),
        ('{attention: "95% of full"}', "cannot be read; write 'at least 95% of full'"),
        ('{attention: "at least 95% of ful"}', "which is no placement of the study (did you mean"),
        ('{attention: "at least 95% of attention"}', "holds it against itself"),
        ('{attention: "at least 120% of full"}', "allowed: above 0% and at most 100%"),
    ],
)
def test_claims_are_read_before_anything_runs(edit: Callable[..., str], claim: str, message: str):
    text = edit(("margin: 5%", f"margin: 5%\nhypothesis: {claim}"))
    with pytest.raises(StudyError, match=r"study.yaml:3\d: hypothesis\.") as caught:
        parse_study(text, Path("study.yaml"))
    assert message in str(caught.value)


def test_a_claim_is_kept_in_its_canonical_form(edit: Callable[..., str]):
    text = edit(("margin: 5%", 'margin: 5%\nhypothesis: {attention: "at least  95.0 % of full"}'))
    found = parse_study(text, Path("study.yaml"))
    assert found.hypothesis == {"attention": "at least 95% of full"}
