import sqlite3

import numpy as np
import pytest

from loratlas.errors import RunFolderError, StoreError
from loratlas.measure.scores import SplitScore
from loratlas.study.records import BASE, TrialRecord
from loratlas.study.store import FILE_NAME, Store
from loratlas.train.outcome import Probe


def record(**changes):
    values = {
        "digest": "d1",
        "placement_digest": "p1",
        "learning_rate": 1e-4,
        "seed": 0,
        "status": "done",
        "engine": "reference",
    }
    return TrialRecord(**{**values, **changes})


def split(*nll):
    count = len(nll)
    return SplitScore(
        row=np.arange(count)[::-1] * 3,
        nll=np.array(nll),
        num_tokens=np.arange(1, count + 1),
        num_bytes=np.arange(count) + 7,
        num_correct=np.arange(count),
    )


@pytest.fixture
def store(tmp_path):
    found = Store(tmp_path / FILE_NAME, writable=True)
    yield found
    found.close()


def test_what_is_kept_comes_back_exactly(store):
    nll = (0.1, 1 / 3, 1e-300, 12345.678901234567)
    kept = record(losses=[0.1, 1 / 3], environment={"torch": "2"}, adapter="adapters/x")
    store.add_trial(kept, {"seed": 0}, {"test": split(*nll), "validation": split(2.0)})
    assert store.trials() == {"d1": kept}
    found = store.scores("d1")["test"]
    order = np.argsort(split(*nll).row)
    assert found.nll.tolist() == split(*nll).nll[order].tolist()
    assert found.num_tokens.tolist() == split(*nll).num_tokens[order].tolist()
    assert found.num_bytes.tolist() == split(*nll).num_bytes[order].tolist()
    assert found.loss == pytest.approx(split(*nll).loss)


def test_trials_that_finished_together_are_kept_together_or_not_at_all(store):
    earlier = record(digest="d2", status="failed")
    store.add_trial(earlier, {}, {})

    def breaks_off():
        yield record(), {}, {"test": split(1.0)}
        yield record(digest="d2"), {}, {"test": split(2.0)}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.add_trials(breaks_off())
    assert store.trials() == {"d2": earlier}
    assert store.scores("d1") == store.scores("d2") == {}
    both = [(record(digest=digest), {}, {"test": split(1.0)}) for digest in ("d1", "d2")]
    store.add_trials(both)
    assert [trial.status for trial in store.trials().values()] == ["done", "done"]
    assert store.scores("d1").keys() == store.scores("d2").keys() == {"test"}


def test_a_second_attempt_replaces_the_first(store):
    store.add_trial(record(status="failed", error="out of memory"), {}, {})
    store.add_trial(record(attempts=2), {}, {"test": split(1.0)})
    assert [(t.status, t.attempts) for t in store.trials().values()] == [("done", 2)]
    store.add_trial(record(attempts=3), {}, {"test": split(3.0)})
    assert store.scores("d1")["test"].nll.tolist() == [3.0]


def test_a_record_is_written_whole_or_not_at_all(store, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "_add_scores", fail)
    with pytest.raises(KeyboardInterrupt):
        store.add_trial(record(), {}, {"test": split(1.0)})
    assert store.trials() == {}


def test_the_base_and_probes(store):
    assert store.scores(BASE) == {}
    store.set_base_scores({"test": split(1.0, 2.0)})
    assert store.scores(BASE)["test"].loss == pytest.approx(1.0)
    probe = Probe(
        seconds_per_step=0.5, tokens_per_second=9.0, peak_memory_bytes=None, num_steps=6, engine="e"
    )
    store.set_probe("p1", probe)
    assert store.probes() == {"p1": probe}
    assert store.meta("nothing") is None


def test_another_schema_is_refused(tmp_path):
    Store(tmp_path / FILE_NAME, writable=True).set_meta("schema", 99)
    with pytest.raises(RunFolderError, match="written with schema 99, this version reads schema 2"):
        Store(tmp_path / FILE_NAME)


def test_what_is_no_store_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match=r"no run here \(run.sqlite is missing\)"):
        Store(tmp_path / FILE_NAME)
    (tmp_path / FILE_NAME).write_text("this is no database at all, it only has its name" * 50)
    with pytest.raises(StoreError, match="file is not a database"):
        Store(tmp_path / FILE_NAME)


def test_the_rollback_journal_is_used(store, tmp_path):
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
