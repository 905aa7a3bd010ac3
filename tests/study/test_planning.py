"""Plans of a study: rows, predicted costs, measured time, and what is said where one lacks."""

import json
import subprocess
import sys

import pytest

from loratlas.errors import RequestError, TrialError
from loratlas.study.planning import calibrate, plan_study, read_rows, workload_of
from loratlas.study.progress import Silent
from loratlas.study.resolve import resolve_study
from loratlas.study.spec import load_study
from loratlas.train import probe as probing
from loratlas.train.outcome import Probe


@pytest.fixture
def study(study_folder):
    return load_study(study_folder / "study.yaml")


@pytest.fixture
def resolved(study, anatomy):
    return resolve_study(study, anatomy)


def test_costs_of_a_study(study, anatomy, resolved):
    found = plan_study(study, anatomy, resolved, rows=read_rows(study))
    json.dumps(found, allow_nan=False)
    full, attention = found["placements"].values()
    assert found["workload"]["basis"] == "the training rows, tokenised"
    assert found["workload"]["largest_batch"]["rows"] == 4
    assert (
        full["flops_per_step"] == full["forward_flops_per_step"] + full["backward_flops_per_step"]
    )
    assert full["flops_per_step"] > attention["flops_per_step"] * 0.9
    assert full["peak_memory_bytes"] == sum(full["memory"].values())
    assert full["memory"]["weights"] == 4 * anatomy.num_parameters
    assert full["optimiser_bytes"] == 2 * full["adapter_bytes"]
    assert [full["seconds"], found["seconds"], full["unknown"]] == [None, None, None]


def test_without_rows_nothing_is_predicted(study, anatomy, resolved):
    found = plan_study(study, anatomy, resolved)
    assert found["workload"] is None
    full = found["placements"]["full"]
    assert (full["flops_per_step"], full["peak_memory_bytes"]) == (None, None)
    assert full["adapter_bytes"] == 4 * full["trainable_parameters"]


def test_rows_that_cannot_be_read_are_taken_at_their_longest(study, study_folder):
    (study_folder / "rows.jsonl").unlink()
    rows = read_rows(study)
    assert rows.basis.startswith(
        "every row at its longest, data.max_length: the rows cannot be read ("
    )
    workload = workload_of(study, rows, {"n_positions": 1024})
    assert (workload.rows, workload.tokens) == (4, 48)
    assert workload_of(study, rows, {"n_positions": 32}).tokens == 32
    with pytest.raises(RequestError, match="nothing can be timed on every row at its longest"):
        calibrate(study, [], rows, Silent())


def timed(seconds):
    def probe(task):
        if len(task.placement.adapters) in seconds:
            return Probe(
                seconds_per_step=seconds[len(task.placement.adapters)],
                tokens_per_second=1.0,
                peak_memory_bytes=None,
                num_steps=6,
                engine="reference",
            )
        raise TrialError("out of memory")

    return probe


def test_time_is_what_was_measured(study, anatomy, resolved, monkeypatch):
    monkeypatch.setattr(probing, "probe", timed({12: 0.5, 6: 0.25}))
    rows = read_rows(study)
    seconds = calibrate(study, resolved, rows, Silent())
    assert seconds == {"full": 1.5, "attention": 0.75}  # three steps a trial
    found = plan_study(study, anatomy, resolved, rows=rows, seconds=seconds)
    assert found["placements"]["attention"]["seconds"] == 0.75
    assert found["seconds"] == 2 * (1.5 + 0.75)  # two seeds


def test_a_placement_that_cannot_be_timed_leaves_the_total_open(
    study, anatomy, resolved, monkeypatch
):
    monkeypatch.setattr(probing, "probe", timed({12: 0.5}))
    rows = read_rows(study)
    seconds = calibrate(study, resolved, rows, Silent())
    assert seconds == {"full": 1.5, "attention": None}
    assert plan_study(study, anatomy, resolved, rows=rows, seconds=seconds)["seconds"] is None


def test_plans_without_torch():
    code = (
        "import sys, loratlas.cost.plan, loratlas.analysis.power, loratlas.report.plans\n"
        "import loratlas.study.planning\n"
        "loratlas.analysis.power.power_of(6, 2)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
