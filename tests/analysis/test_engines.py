"""Who trained what is told of the trials that a study asks for, with the reasons that were kept."""

from dataclasses import replace

import pytest

from loratlas.analysis.engines import engines
from loratlas.analysis.summary import results
from loratlas.study.records import TrialRecord
from loratlas.study.store import FILE_NAME, Store

TRIAL = TrialRecord(
    digest="", placement_digest="p", learning_rate=1e-2, seed=0, status="done", engine="packed"
)


def pack(engine, *trials, reason=None):
    return {"number": 1, "engine": engine, "trials": list(trials), "reason": reason}


@pytest.fixture
def store(tmp_path):
    with_trials = Store(tmp_path / FILE_NAME, writable=True)
    for digest, engine in {
        "a": "packed",
        "b": "packed",
        "c": "reference",
        "d": "reference",
    }.items():
        with_trials.add_trial(replace(TRIAL, digest=digest, engine=engine), {}, {})
    yield with_trials
    with_trials.close()


def test_a_run_that_has_only_begun(tmp_path):
    store = Store(tmp_path / FILE_NAME, writable=True)
    assert engines(store) == {"packed": 0, "reference": 0, "reasons": []}
    assert results(store)["engines"] == engines(store)
    store.close()


def test_trials_and_reasons_are_counted(store):
    store.set_meta(
        "packs",
        [
            pack("packed", "a", "b"),
            pack("reference", "c", reason="odd"),
            pack("reference", "d", reason="odd"),
            pack("reference", "not yet", reason="another"),
        ],
    )
    assert engines(store) == {
        "packed": 2,
        "reference": 2,
        "reasons": [{"reason": "odd", "num_trials": 2}],
    }
    store.set_meta("wanted", ["a", "c", "not yet"])
    assert engines(store)["reasons"] == [{"reason": "odd", "num_trials": 1}]
    assert (engines(store)["packed"], engines(store)["reference"]) == (1, 1)


def test_a_run_of_an_earlier_version_gives_no_reasons(store):
    assert engines(store) == {"packed": 2, "reference": 2, "reasons": []}
