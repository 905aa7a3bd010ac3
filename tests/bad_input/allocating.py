"""Scores that are none, and budgets that cannot be divided."""

import json
from typing import Any

from bad_input.case import Case, edit_json, write

_HUGE = "9" * 400


def _allocate(name: str, asked: tuple[str, ...], says: str) -> Case:
    return Case(name=name, asked=("allocate", "scores.json", *asked), says=says)


def _budgeted(name: str, asked: tuple[str, ...], says: str) -> Case:
    return _allocate(name, ("--budget", "1k", *asked), says)


def _scores(name: str, says: str, **changes: Any) -> Case:
    """A file of scores that is not what `score` prints."""
    return Case(
        name=name,
        given=edit_json("scores.json", **changes),
        asked=("allocate", "scores.json", "--budget", "1k"),
        says=says,
    )


def _said(name: str, asked: tuple[str, ...], says: str) -> Case:
    return Case(name=name, asked=asked, says=says)


def _score_rows(**changes: Any) -> list[dict[str, Any]]:
    return [{"path": "transformer.h.0.attn.c_attn", "value": 1, **changes}]


_ALLOCATIONS = [
    _allocate(
        "a budget below the smallest",
        ("--budget", "10"),
        "a budget of 10 parameters is below "
        "the smallest allocation: with the sites and ranks that are allowed, the smallest takes",
    ),
    _allocate(
        "a budget above the largest",
        ("--budget", "1B"),
        "a budget of 1,000,000,000 parameters is above the largest allocation",
    ),
    _allocate("a budget in words", ("--budget", "much"), "--budget much: write 2M or 1500000 for"),
    _allocate(
        "a unit that is none", ("--budget", "64 rnks"), "--budget 64 rnks: 'rnks' is no unit"
    ),
    _allocate("a budget of 0", ("--budget", "0"), "--budget 0: write a number above 0"),
    _allocate(
        "half a rank", ("--budget", "0.5 ranks"), "--budget 0.5 ranks: less than 1 of its unit"
    ),
    _allocate("a budget beyond a float", ("--budget", "1e308B"), "--budget 1e308B: write a number"),
    _budgeted(
        "a rank that is none", ("--ranks", "0,4,x"), "--ranks 0,4,x: 'x' is no rank and no range"
    ),
    _budgeted(
        "ranks backwards", ("--ranks", "8..4"), "--ranks 8..4: '8..4' is no rank and no range"
    ),
    _budgeted("no ranks", ("--ranks", ""), "--ranks : '' is no rank and no range of ranks"),
    _budgeted(
        "a cap without a limit", ("--cap", "all"), "--cap all: write a rule and what it may take"
    ),
    _budgeted(
        "a cap in words", ("--cap", "all=x"), "--cap all x: write 2M or 1500000 for parameters"
    ),
    _budgeted("a cap on an unknown word", ("--cap", "al=5"), "unknown word al (did you mean all?)"),
    _budgeted(
        "a tie of parts that are none", ("--tie", "q,x"), "all has no part x; its parts are q, k"
    ),
    _budgeted(
        "a tie of parts that are fused", ("--tie", "q,k"), "the tie all.q | all.k: selects no"
    ),
    _budgeted(
        "only what is not there", ("--only", "router"), "only router: selects no site. router: "
    ),
    _budgeted(
        "a highest rank below the lowest",
        ("--min-rank", "9", "--max-rank", "3"),
        "the highest rank, 3, is below",
    ),
    _budgeted("a rank below 0", ("--min-rank", "-2"), "a rank is not below 0: -2"),
    _budgeted("rank 0", ("--rank", "0"), "rank is a positive integer, not 0"),
    _budgeted("no site", ("--sites", "0"), "at least 1 site has an adapter, not 0"),
    _budgeted("tau NaN", ("--tau", "nan"), "tau is a finite number above 0, not nan"),
    _budgeted("a model that is none", ("--model", "demo:gpt3"), "demo:gpt3: no such bundled model"),
    _budgeted("scores of another model", ("--model", "demo:gpt2"), "demo:gpt2 has digest "),
]

_SCORES = [
    _said(
        "a file of scores that is not there",
        ("allocate", "score.json", "--budget", "1k"),
        "score.json: there is no such file (did you mean scores.json?)",
    ),
    Case(
        name="scores cut off",
        given=write("scores.json", "{"),
        asked=("allocate", "scores.json", "--budget", "1k"),
        says="scores.json: cannot be read as JSON: ",
    ),
    Case(
        name="a list in place of scores",
        given=write("scores.json", "[]"),
        asked=("allocate", "scores.json", "--budget", "1k"),
        says="scores.json: holds a list, not scores; scores are what `loratlas score",
    ),
    Case(
        name="a placement in place of scores",
        given=write("scores.json", json.dumps({"placement": []})),
        asked=("allocate", "scores.json", "--budget", "1k"),
        says="scores.json: method is missing; scores are what",
    ),
    _scores("no score", "the table by by_hand holds no score", scores=[]),
    _scores("scores that are no list", "scores.json: scores is {}, not a list", scores={}),
    _scores(
        "a score without its site",
        "scores.json: score 1 has no path: {'value': 1}",
        scores=[{"value": 1}],
    ),
    _scores(
        "a site without its score",
        "scores.json: the score of a has no value",
        scores=[{"path": "a"}],
    ),
    _scores(
        "a curve that is none",
        "the curve of transformer.h.0.attn.c_attn is no list",
        scores=_score_rows(curve=2),
    ),
    _scores(
        "a site of another model",
        "1 of 1 scored sites are not in model, first a",
        scores=[{"path": "a", "value": 1}],
    ),
    _scores(
        "a score of NaN",
        "the score of transformer.h.0.attn.c_attn is nan, not a finite number",
        scores=_score_rows(value=float("nan")),
    ),
    _scores(
        "a score of nothing",
        "the score of transformer.h.0.attn.c_attn is None, not a finite",
        scores=_score_rows(value=None),
    ),
    _scores(
        "a score of 400 digits",
        "the score of transformer.h.0.attn.c_attn is",
        scores=_score_rows(value=int(_HUGE)),
    ),
    _scores(
        "a word in a curve", "is 'x' at rank 2 of its curve", scores=_score_rows(curve=[1, "x"])
    ),
    _scores("a digest of another model", "with digest 000000000000, and ", anatomy_digest="0" * 64),
    _scores(
        "yes in place of true", "higher_is_better is 'yes', not a bool", higher_is_better="yes"
    ),
    _scores(
        "a granularity that is none",
        "granularity is 'sight'; it is one of site, type, layer, group",
        granularity="sight",
    ),
    _scores("a cost that is none", "scores.json: holds no scores (ScoringCost", cost={"hours": 3}),
    _scores("settings that are a list", "scores.json: settings is [], not a dict", settings=[]),
    _scores("notes that are a number", "scores.json: notes is 3, not a list", notes=3),
    _scores(
        "an agreement in words", "scores.json: agreement is 'high', not a number", agreement="high"
    ),
]

CASES = [*_ALLOCATIONS, *_SCORES]
