"""What trials hold, with a pencil: two sites whose ranks two seeds leave otherwise."""

from dataclasses import replace

import pytest

import anatomies
from loratlas.analysis.held import held
from loratlas.study.records import PlacementRecord, TrialRecord

# Each rank at q is 16 + 16 parameters, at up 16 + 24.
ANATOMY = anatomies.llama(width=16, layers=1, key_value=8, inner=24)
Q, UP = "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj"
STILL = PlacementRecord(
    name="x", digest="d", rule="r", trainable_parameters=3 * 72, matched_to=None,
    families={"attention": 96, "feed_forward": 120},
    adapters=[{"path": path, "rank": 3, "alpha": 6.0} for path in (Q, UP)], warnings=[],
)  # fmt: skip
MOVING = replace(
    STILL, learned={"kind": "dynamic", "start_parameters": 216, "target_parameters": 150}
)


def trial(seed, ranks, status="done"):
    final = [{"path": path, "rank": rank, "alpha": 2.0 * rank} for path, rank in ranks.items()]
    return TrialRecord(
        digest=str(seed), placement_digest="d", learning_rate=1e-3, seed=seed, status=status,
        engine="packed", final=final or None,
    )  # fmt: skip


TRIALS = (
    trial(0, {Q: 1, UP: 2}),  # 32 + 80
    trial(1, {Q: 4}),  # 128
    trial(2, {Q: 9, UP: 9}, status="failed"),
)


def test_a_placement_that_stands_still_holds_what_it_was_resolved_to():
    found = held(STILL, TRIALS, ANATOMY)
    assert (found.num_sites, found.ranks, found.parameters) == (2, (3,), 216)
    assert found.families == STILL.families
    assert found.extremes is None


def test_a_placement_that_moves_holds_what_its_trials_ended_with():
    found = held(MOVING, TRIALS, ANATOMY)
    assert (found.num_sites, found.ranks) == (2, (1, 2, 4))
    assert found.families == {"attention": 80, "feed_forward": 40}
    assert found.parameters == 120
    assert found.extremes == (112, 128)


@pytest.mark.parametrize("trials", [(), (TRIALS[2],)])
def test_before_a_trial_has_ended_it_is_where_it_begins(trials):
    found = held(MOVING, trials, ANATOMY)
    assert (found.parameters, found.families) == (216, STILL.families)
    assert found.extremes is None
    # Earlier versions kept the budget as the count.
    assert held(replace(MOVING, trainable_parameters=150), trials, ANATOMY) == found
