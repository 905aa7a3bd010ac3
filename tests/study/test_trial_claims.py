import pytest

from loratlas.errors import StaleClaimError, StoreError
from loratlas.study.records import TrialRecord
from loratlas.study.store import FILE_NAME, Store


def record(digest, **changes):
    values = {
        "digest": digest,
        "placement_digest": "p1",
        "learning_rate": 1e-4,
        "seed": 0,
        "status": "done",
        "engine": "packed",
    }
    return TrialRecord(**{**values, **changes})


@pytest.fixture
def store(tmp_path):
    found = Store(tmp_path / FILE_NAME, writable=True)
    yield found
    found.close()


def test_every_beginning_of_a_trial_has_a_number(store):
    assert store.claim(["a", "b"], "one").attempts == {"a": 1, "b": 1}
    assert store.claim(["b", "c"], "two").attempts == {"b": 2, "c": 1}


def test_a_late_attempt_stores_nothing(store):
    late = store.claim(["a", "b"], "one")
    current = store.claim(["b"], "two")
    with pytest.raises(StaleClaimError, match="attempt 1 by one arrives late") as told:
        store.add_trials([(record("a"), {}, {}), (record("b", status="failed"), {}, {})], late)
    assert isinstance(told.value, StoreError)
    assert store.trials() == {}
    store.add_trials([(record("b"), {}, {})], current)
    with pytest.raises(StaleClaimError):
        store.add_trials([(record("b", status="failed"), {}, {})], late)
    assert store.trials()["b"].status == "done"


def test_what_was_stored_once_is_not_stored_again_under_the_same_claim(store):
    claim = store.claim(["a"], "one")
    store.add_trials([(record("a"), {}, {})], claim)
    with pytest.raises(StaleClaimError):
        store.add_trials([(record("a", status="failed"), {}, {})], claim)


def test_under_way_is_what_an_owner_began_and_did_not_end(store):
    first = store.claim(["a"], "one")
    store.claim(["b", "c"], "one")
    store.claim(["c"], "two")
    assert store.under_way("one") == ["a", "b"]
    assert store.under_way("two") == ["c"]
    store.add_trials([(record("a"), {}, {})], first)
    assert store.under_way("one") == ["b"]
    assert store.under_way("three") == []


def test_claims_outlive_the_process(tmp_path, store):
    store.claim(["a"], "one")
    again = Store(tmp_path / FILE_NAME, writable=True)
    assert again.claim(["a"], "two").attempts == {"a": 2}
    again.close()
