import numpy as np
import pytest

from loratlas.analysis.intervals import mean_interval
from loratlas.analysis.measured import Measured
from loratlas.measure.answers import Answer, TaskScore
from loratlas.measure.scores import SplitScore
from loratlas.study.records import BASE
from loratlas.study.store import FILE_NAME, Store

TASK = "lm_eval:x"


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / FILE_NAME, writable=True)
    yield store
    store.close()


def keep(store, trial: str, value: float | None, digest: str = "now") -> None:
    answers = tuple(Answer(question=i, prompt_digest="", truncated=i == 0) for i in range(4))
    found = TaskScore(metrics={"acc": value}, answers=answers, seconds=1.0)
    store.set_measurement(trial, TASK, digest, found)


def keep_text(store, trial: str, loss: float) -> None:
    two = np.array([0, 1])
    score = SplitScore(row=two, nll=np.array([3 * loss, loss]), num_tokens=two * -2 + 3,
                       num_bytes=two + 1, num_correct=two * 0)  # fmt: skip
    store.set_measurement(trial, "forgetting", "now", score)


def measured(store) -> Measured:
    return Measured(store=store, digests={TASK: "now", "forgetting": "now"})


def test_figures_are_means_over_seeds_with_their_t_interval(store):
    keep(store, BASE, 0.25)
    for trial, value in (("a", 0.5), ("b", 0.75), ("c", 0.25)):
        keep(store, trial, value)
    found = measured(store).of_trials({0: "a", 1: "b", 2: "c"})["tasks"][TASK]["acc"]
    assert found["mean"] == pytest.approx(0.5)
    assert found["interval"] == pytest.approx(mean_interval([0.5, 0.75, 0.25]))
    assert found["values"] == {"0": 0.5, "1": 0.75, "2": 0.25}
    assert (found["num_questions"], found["num_truncated"]) == (4, 1)
    base = measured(store).of_base()["tasks"][TASK]["acc"]
    assert base == {"mean": 0.25, "interval": None, "num_questions": 4, "num_truncated": 1}


def test_what_is_unknown_is_none(store):
    assert measured(store).of_base() == {"tasks": {TASK: None}, "forgetting": None}
    assert measured(store).of_trials({}) == {"tasks": {TASK: None}, "forgetting": None}
    keep(store, BASE, 0.25)
    keep_text(store, BASE, 2.0)
    found = measured(store).of_trials({0: "missing"})
    assert found["tasks"][TASK]["acc"]["mean"] is None
    assert found["tasks"][TASK]["acc"]["values"] == {}
    assert found["forgetting"]["after"] is None
    assert found["forgetting"]["difference"] is None


def test_one_figure_that_is_no_number_makes_the_mean_none(store):
    for trial, value in ((BASE, 0.5), ("a", 0.5), ("b", None)):
        keep(store, trial, value)
    found = measured(store).of_trials({0: "a", 1: "b"})["tasks"][TASK]["acc"]
    assert (found["mean"], found["interval"]) == (None, None)


def test_figures_of_an_earlier_form_of_a_measure_are_not_read(store):
    keep(store, BASE, 0.25)
    keep(store, "a", 0.5)
    keep(store, "b", 0.75, digest="before")
    found = measured(store).of_trials({0: "a", 1: "b"})["tasks"][TASK]["acc"]
    assert found["values"] == {"0": 0.5}


def test_forgetting_is_the_difference_to_the_base(store):
    for trial, loss in ((BASE, 2.0), ("a", 2.5), ("b", 3.5)):
        keep_text(store, trial, loss)
    found = measured(store).of_trials({0: "a", 1: "b"})["forgetting"]
    assert (found["before"], found["after"], found["difference"]) == pytest.approx((2.0, 3.0, 1.0))
    assert found["interval"] == pytest.approx(mean_interval([0.5, 1.5]))
    assert found["losses"] == {"0": 2.5, "1": 3.5}
    assert (found["num_rows"], found["num_tokens"]) == (2, 4)
    assert measured(store).of_base()["forgetting"] == {
        "loss": 2.0, "num_rows": 2, "num_tokens": 4,
    }  # fmt: skip
