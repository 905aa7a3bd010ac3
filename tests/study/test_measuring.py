"""Measures beside the loss: taken of saved adapters, once each, and what is missing is taken."""

import json
from contextlib import closing

import pytest

from loratlas.analysis.summary import results
from loratlas.errors import StudyError, TrialError
from loratlas.measure.answers import Answer, TaskScore
from loratlas.measure.forgetting import PreparedForgetting
from loratlas.study import run as run_module
from loratlas.study import training
from loratlas.study.folder import FILE_NAME
from loratlas.study.progress import Silent
from loratlas.study.records import BASE
from loratlas.study.run import run_study
from loratlas.study.spec import load_study
from loratlas.study.standing import standing
from loratlas.study.store import Store
from loratlas.train.outcome import Probe

FORGETTING = "{task: forgetting, source: text.jsonl, rows: ROWS}"
GSM8K = '{task: "lm_eval:gsm8k", source: questions.jsonl, max_new_tokens: 4}'


@pytest.fixture
def study(study_folder, monkeypatch):
    """Writes and runs the tiny study with measures; returns its results."""
    quick = Probe(
        seconds_per_step=0.5, tokens_per_second=9.0, peak_memory_bytes=1, num_steps=6, engine="e"
    )
    monkeypatch.setattr(run_module, "probe", lambda _task: quick)
    text = [{"text": f"Ben number {i} lives in Rome"} for i in range(8)]
    asked = [{"question": f"Ada has {i}?", "answer": f"#### {i}"} for i in range(3)]
    for name, rows in (("text.jsonl", text), ("questions.jsonl", asked)):
        (study_folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    plain = (study_folder / "study.yaml").read_text()

    def run(*measures: str, change=("", "")) -> dict:
        (study_folder / "study.yaml").write_text(
            plain.replace(*change) + f"measures: [{', '.join(['loss', *measures])}]\n"
        )
        run_study(load_study(study_folder / "study.yaml"), study_folder / "run", Silent())
        with closing(opened(study_folder)) as store:
            return results(store)

    return run


def opened(folder) -> Store:
    return Store(folder / "run" / FILE_NAME)


def forgetting(rows: int = 4) -> str:
    return FORGETTING.replace("ROWS", str(rows))


def no_training(*_, **__):
    raise AssertionError("nothing is to be trained")


def test_a_measure_that_is_added_or_changed_costs_no_training(study, study_folder, monkeypatch):
    before = study()
    assert before["base"]["tasks"] == {}
    assert before["placements"]["full"]["forgetting"] is None
    monkeypatch.setattr(training, "run_pack", no_training)
    found = study(forgetting(), GSM8K)
    assert {name: arm["losses"] for name, arm in found["placements"].items()} == {
        name: arm["losses"] for name, arm in before["placements"].items()
    }
    text = found["placements"]["full"]["forgetting"]
    assert text["num_rows"] == 4
    assert text["before"] == found["base"]["forgetting"]["loss"]
    assert text["difference"] == pytest.approx(text["after"] - text["before"])
    assert text["after"] != text["before"]
    figure = found["placements"]["attention"]["tasks"]["lm_eval:gsm8k"]["exact_match,strict-match"]
    assert (figure["num_questions"], len(figure["values"])) == (3, 2)
    with closing(opened(study_folder)) as store:
        assert len(store.answers(BASE, "lm_eval:gsm8k")) == 3
        assert standing(store)["complete"]

    taken = counted(monkeypatch)
    study(forgetting(), GSM8K)
    assert taken == []
    changed = study(forgetting(5), GSM8K)
    assert changed["placements"]["full"]["forgetting"]["num_rows"] == 5
    assert len(taken) == 1 + 4
    assert "forgetting" not in study()["placements"]["full"]["tasks"]


def counted(monkeypatch) -> list:
    taken = []
    real = PreparedForgetting.take
    monkeypatch.setattr(PreparedForgetting, "take", lambda *args: (taken.append(1), real(*args))[1])
    return taken


def test_only_trials_at_the_chosen_rate_are_measured(study, study_folder, monkeypatch):
    taken = counted(monkeypatch)
    study(forgetting(), change=("learning_rate: 1e-2", "learning_rate: [1e-2, 1e-4]"))
    with closing(opened(study_folder)) as store:
        assert len(store.trials()) == 8
    assert len(taken) == 1 + 4


def test_a_measure_that_fails_is_told_and_tried_again(study, study_folder, monkeypatch):
    real = PreparedForgetting.take

    def failing(self, model, base):
        if model is not base.model and not failed:
            failed.append(model)
            raise RuntimeError("out of memory")
        return real(self, model, base)

    failed: list = []
    monkeypatch.setattr(PreparedForgetting, "take", failing)
    with pytest.raises(TrialError, match=r"1 of 4 measures failed, first forgetting of .*memory"):
        study(forgetting())
    with closing(opened(study_folder)) as store:
        assert not standing(store)["complete"]
        measured = [bool(store.measurements(digest)) for digest in store.trials()]
    assert sorted(measured) == [False, True, True, True]
    found = study(forgetting())
    assert len(found["placements"]["full"]["forgetting"]["losses"]) == 2


def test_what_fails_on_the_base_stops_before_training(study, monkeypatch):
    def broken(*_):
        raise TrialError("no numbers")

    monkeypatch.setattr(PreparedForgetting, "take", broken)
    monkeypatch.setattr(training, "run_pack", no_training)
    with pytest.raises(TrialError, match="no numbers"):
        study(forgetting())


def test_an_unknown_task_is_told_before_the_model_is_read(study, study_folder):
    with pytest.raises(StudyError, match=r"lm_eval:gsm9k: .*did you mean gsm8k\?"):
        study("lm_eval:gsm9k", change=("model: ", "model: nowhere"))
    assert not (study_folder / "run").exists()


def test_a_measurement_is_kept_whole_and_replaced_whole(tmp_path):
    def taken(text: str) -> TaskScore:
        answer = Answer(
            question=0,
            prompt_digest="d",
            truncated=True,
            text=text,
            extracted={"strict": "1"},
            metrics={"exact_match": 1.0},
        )
        return TaskScore(metrics={"exact_match": 1.0, "odd": None}, answers=(answer,), seconds=2.5)

    store = Store(tmp_path / FILE_NAME, writable=True)
    for text in ("first", "second"):
        store.set_measurement(BASE, "lm_eval:x", text, taken(text))
    assert store.answers(BASE, "lm_eval:x") == list(taken("second").answers)
    (record,) = store.measurements(BASE).values()
    assert (record.digest, record.num_questions, record.num_truncated) == ("second", 1, 1)
    assert record.metrics == {"exact_match": 1.0, "odd": None}
    store.set_base_scores({})
    assert store.measurements(BASE) == {}
    assert store.answers(BASE, "lm_eval:x") == []
    store.close()
