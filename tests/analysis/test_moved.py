"""Which trials say how a placement moved, and do their seeds agree?"""

from types import SimpleNamespace

import pytest

from loratlas.analysis.moved import moved


def trial(seed, rate, last, status="done"):
    """A trial of two sites, whose ranks change after the fourth step."""
    return SimpleNamespace(
        seed=seed,
        learning_rate=rate,
        status=status,
        placement_digest="d",
        trajectory={
            "steps": [0, 4],
            "ranks": {"a": [2, last[0]], "b": [2, last[1]]},
            "parameters": [40, 40],
            "decisions": [{"step": 4}, {"step": 4}],
        },
    )


def store_of(chosen, *trials):
    record = SimpleNamespace(
        name="moving",
        digest="d",
        learned={"kind": "dynamic"},
        adapters=[{"path": "a"}, {"path": "b"}],
    )
    return SimpleNamespace(
        meta={"chosen": chosen}.get,
        placements=lambda: [record],
        trials=lambda: {str(number): each for number, each in enumerate(trials)},
    )


TRIALS = (
    trial(1, 0.01, (3, 1)),
    trial(0, 0.01, (4, 0)),
    trial(2, 0.01, (0, 4), status="diverged"),
    trial(0, 0.1, (0, 4)),
)


def test_trials_at_the_chosen_rate_that_ended():
    (found,) = moved(store_of({"moving": 0.01}, *TRIALS))
    assert found.seeds == (0, 1)
    assert found.steps == (0, 4)
    assert found.ranks.tolist() == [[[2, 4], [2, 0]], [[2, 3], [2, 1]]]
    assert found.mean_ranks.tolist() == [[2, 3.5], [2, 0.5]]
    assert found.agreement == pytest.approx(1)
    assert found.num_decisions == (1, 1)  # of two changes each


@pytest.mark.parametrize("chosen", [{}, {"moving": None}])
def test_where_no_rate_is_chosen_rates_are_not_mixed(chosen):
    assert moved(store_of(chosen, *TRIALS)) == []
