"""What was taken, by hand from stored records."""

import json

import pytest

from loratlas.analysis.resources import resource_tables, resources
from loratlas.study.records import TrialRecord
from loratlas.train.outcome import Probe

NUM_PARAMETERS = 1000


def phase(before, peak, reserved=None):
    return {"before": before, "peak": peak, "reserved": reserved}


def role(name="attention", count=1000, flops=110_000.0, num_bytes=48_000):
    return {"role": name, "parameters": count, "flops_per_token": flops, "bytes": num_bytes}


def probe(**changes):
    values = {
        "seconds_per_step": 3.0,
        "tokens_per_second": 9.0,
        "peak_memory_bytes": 70,
        "num_steps": 5,
        "engine": "reference",
        "step_seconds": [1.0, 5.0, 2.0, 4.0, 3.0],
        "forward_seconds": [0.5, 1.5, 1.0, 1.0, 1.0],
        "num_positions": 200,
        "memory": {"load": phase(10, 40), "train": phase(30, 100), "score": phase(30, 60)},
        "flops": {"counted": 200, "planned": 210.0, "num_tokens": 7, "unknown": None},
        "roles": [role()],
    }
    return Probe(**{**values, **changes})


def trial(seed, **changes):
    return TrialRecord(
        digest=str(seed), placement_digest="d", learning_rate=1e-3, seed=seed, status="done",
        engine="reference", **changes,
    )  # fmt: skip


def test_the_figures_of_a_placement():
    trials = [
        trial(0, adapter_bytes=4200, memory={"train": phase(1, 9), "score": phase(2, 5)}),
        trial(1, adapter_bytes=4198, memory={"train": phase(1, 8), "score": phase(3, 6)}),
        trial(2),
    ]
    found = resources(NUM_PARAMETERS, probe(), trials)
    assert found["adapter_bytes"] == {"planned": 4000, "on_disk": 4200}
    assert found["step_seconds"] == {
        "median": 3.0, "lower_quartile": 2.0, "upper_quartile": 4.0, "least": 1.0, "most": 5.0,
        "num_steps": 5,
    }  # fmt: skip
    assert found["memory"]["train"] == {
        "before_bytes": 30, "peak_bytes": 100, "reserved_bytes": None
    }  # fmt: skip
    assert found["trial_memory"]["train"]["peak_bytes"] == 9
    assert found["trial_memory"]["score"] == {
        "before_bytes": 3, "peak_bytes": 6, "reserved_bytes": None
    }  # fmt: skip
    assert found["flops"]["planned_over_counted"] == pytest.approx(1.05)
    (cost,) = found["roles"]
    assert cost["flops_per_parameter_and_token"] == 110.0
    assert cost["bytes_per_parameter"] == 48.0
    # 15 seconds of steps less 5 of forward passes, over 1000 parameters and 200 tokens.
    assert cost["seconds_per_parameter_and_token"] == pytest.approx(10 / 200_000)


def test_seconds_of_roles_that_share_a_step_are_not_told_apart():
    both = [role("attention", 400), role("feed_forward", 600, None, None)]
    first, second = resources(NUM_PARAMETERS, probe(roles=both), [])["roles"]
    assert first["seconds_per_parameter_and_token"] is None
    assert first["flops_per_parameter_and_token"] == 275.0
    assert second == {
        "role": "feed_forward", "parameters": 600, "flops_per_parameter_and_token": None,
        "seconds_per_parameter_and_token": None, "bytes_per_parameter": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    "missing",
    [
        None,
        # A probe that an earlier version left has the first five fields only.
        Probe(seconds_per_step=1, tokens_per_second=1, peak_memory_bytes=1, num_steps=6, engine=""),
    ],
)
def test_without_a_probe_nothing_is_known_and_the_form_is_the_same(missing):
    found = resources(NUM_PARAMETERS, missing, [])
    full = resources(NUM_PARAMETERS, probe(), [])
    json.dumps(found, allow_nan=False)
    assert found["roles"] == []
    for key in ("step_seconds", "memory", "trial_memory", "flops"):
        assert list(found[key]) == list(full[key])
    assert found["memory"]["load"].keys() == full["memory"]["load"].keys()
    assert {*found["step_seconds"].values()} == {None, 0}
    assert {*found["flops"].values()} == {None}


def results(*probes):
    return {
        "placements": {
            str(number): {
                "peak_memory_bytes": each and each.peak_memory_bytes,
                "resources": resources(NUM_PARAMETERS, each, []),
            }
            for number, each in enumerate(probes)
        }
    }


def test_the_tables():
    found = resource_tables(results(probe(), None))["tables"]
    titles = [table["title"] for table in found]
    assert titles == [
        "adapters on disk, and time of a step",
        "peak memory by phase, of the probe",
        "operations of one row, forward and back",
        "what adapting a role costs",
    ]
    step, memory, flops, roles = found
    assert step["rows"][0]["median step"] == 3.0
    assert memory["rows"][0] == {
        "placement": "0", "loading, peak": 40, "training, peak": 100, "scoring, peak": 60,
        "training, above model": 70,
    }  # fmt: skip
    assert memory["rows"][1]["training, peak"] is None
    assert flops["rows"][0]["planned / counted"] == pytest.approx(1.05)
    assert [row["placement"] for row in roles["rows"]] == ["0"]
    assert roles["rows"][0]["ps / parameter / token"] == pytest.approx(5e7)


def test_a_gpus_reserve_and_a_missing_count_are_shown_where_there_are_some():
    on_gpu = probe(
        memory={"train": phase(30, 100, 128)},
        flops={"counted": None, "planned": 210.0, "num_tokens": 7, "unknown": "why"},
    )
    _, _, reserved, flops, _ = resource_tables(results(on_gpu, None))["tables"]
    assert [column["name"] for column in reserved["columns"]] == ["placement", "training, reserved"]
    assert [row["training, reserved"] for row in reserved["rows"]] == [128, None]
    assert [row["no count, since"] for row in flops["rows"]] == ["why", None]
