import math

import pytest

from loratlas.analysis.sweeps import sweep


def test_an_optimum_inside_is_nothing_to_say():
    found = sweep("full", {2e-4: 1.0, 1e-4: 1.2, 4e-4: 1.1})
    assert (found.best, found.edge, found.says) == (2e-4, None, ())


@pytest.mark.parametrize(
    ("losses", "edge", "which"),
    [
        ({1e-4: 1.0, 2e-4: 1.1, 4e-4: 1.2}, "lowest", "a lower one"),
        ({4e-4: 1.0, 2e-4: 1.1, 1e-4: 1.2}, "highest", "a higher one"),
    ],
)
def test_an_optimum_at_the_edge(losses, edge, which):
    found = sweep("full", losses)
    assert found.edge == edge
    assert found.says == (
        f"full: the best learning rate, {found.best:g}, is the {edge} of the sweep; "
        f"{which} may be better still.",
    )


def test_a_rate_that_diverged_brackets_the_optimum():
    found = sweep("full", {1e-4: 1.2, 2e-4: 1.0, 4e-4: None, 8e-4: math.nan})
    assert (found.best, found.edge) == (2e-4, None)
    assert found.says == ("full: no validation loss at 0.0004, 0.0008.",)


def test_one_rate_has_no_edge_and_no_rate_no_best():
    assert sweep("full", {1e-4: 1.0}).edge is None
    for losses in ({}, {1e-4: None, 2e-4: math.inf}):
        found = sweep("full", losses)
        assert (found.best, found.edge) == (None, None)
        assert found.says == ("full: no learning rate has a validation loss.",)


def test_ties_take_the_lowest_rate():
    found = sweep("full", {1e-4: 2.0, 2e-4: 1.0, 4e-4: 1.0, 8e-4: 3.0})
    assert found.best == 2e-4
    assert found.says == ("full: 0.0002 and 0.0004 tie; the lowest is taken.",)
