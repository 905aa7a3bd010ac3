"""Every method by its name, and what is said of names and options that are not there."""

import re

import pytest

from loratlas.errors import RequestError
from loratlas.score.methods import scorer, scorers
from loratlas.score.names import METHODS
from loratlas.score.para import Para


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_the_name_that_it_is_found_by(name):
    found = scorer(name)
    assert found.name == name
    assert found.title
    assert found.unit
    assert scorer(f"inverted:{name}").name == f"inverted:{name}"


def test_all_of_them():
    assert [method.name for method in scorers()] == list(METHODS)
    # None of its words is another's, so that a table of several methods can be read.
    assert len({method.title for method in scorers()}) == len(METHODS)


def test_options_reach_the_method():
    found = scorer("para", {"rank": 3, "halves": True})
    assert isinstance(found, Para)
    assert (found._rank, found._halves) == (3, True)
    assert scorer("inverted:para", {"rank": 3})._scorer._rank == 3


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("gradeint", {}, "gradeint: there is no such method (did you mean gradient?); it is one"),
        ("inverted:gradeint", {}, "gradeint: there is no such method (did you mean gradient?)"),
        ("", {}, ": there is no such method; it is one of gradient, "),
        ("para", {"ranks": 3}, "para has no option ranks (did you mean rank?); it has rank, learn"),
        ("uniform", {"rank": 3}, "uniform has no option rank; it has none"),
        ("para", {"rank": "3"}, "para: option rank: '3': input should be a valid integer"),
        ("para", {"rank": 2.5}, "para: option rank: 2.5: input should be a valid integer"),
        ("para", {"rank": 0}, "para: rank 0: it is at least 1"),
        ("para", {"halves": "yes"}, "para: option halves: 'yes': input should be a valid boolean"),
        (
            "para",
            {"learning_rate": float("nan")},
            "para: option learning_rate: nan: input should be a finite number",
        ),
    ],
)
def test_what_is_not_there(name, options, said):
    with pytest.raises(RequestError, match=f"^{re.escape(said)}"):
        scorer(name, options)
