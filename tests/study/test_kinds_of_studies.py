"""Studies of models that are not causal: what a person writes, and what comes out."""

import json
from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

import families
from loratlas.analysis.summary import results
from loratlas.errors import DataError, ModelError, StudyError
from loratlas.measure.likelihood import score
from loratlas.study import run as run_module
from loratlas.study.folder import open_run
from loratlas.study.planning import plan_study, read_rows
from loratlas.study.progress import Silent
from loratlas.study.request import read_anatomy, read_data
from loratlas.study.resolve import resolve_study
from loratlas.study.run import run_study
from loratlas.study.spec import load_study
from loratlas.train.base import load_base, quiet
from loratlas.train.outcome import Probe
from loratlas.train.trial import ModelRef

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def quick_probe(monkeypatch):
    found = Probe(
        seconds_per_step=0.5, tokens_per_second=9.0, peak_memory_bytes=1, num_steps=6, engine="e"
    )
    monkeypatch.setattr(run_module, "probe", lambda _task: found)


def study(folder, family, data, rule="all", rate="[1e-3, 3e-3]"):
    families.write(family, folder / family)
    (folder / "rows.jsonl").write_text(families.prompt_rows(60))
    towns = ("Oslo", "Rome", "Lima")
    lines = [
        {"text": f"House {n} in {towns[n % 3]}", "label": ("no", "maybe", "yes")[n % 3]}
        for n in range(90)
    ]
    (folder / "classes.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    file = folder / "study.yaml"
    file.write_text(
        f"""\
name: kinds
model: {family}
data: {{{data}, train: 30, validation: 8, test: 12, max_length: 40}}
placements: {{full: "{rule}", attention: attention}}
lora: {{rank: 4, alpha: 8}}
training: {{steps: 4, batch: 4, learning_rate: {rate}}}
seeds: 2
sweep_seeds: 1
"""
    )
    return load_study(file)


CLASSES = "source: classes.jsonl, format: classification"
PAIRS = "source: rows.jsonl, format: prompt_completion"


def run(spec, out):
    run_study(spec, out, Silent())
    store = open_run(out)
    found = results(store)
    trials = [trial for trial in store.trials().values() if trial.status == "done"]
    stored = {trial.digest: store.scores(trial.digest)["test"] for trial in trials}
    store.close()
    return found, trials, stored


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_masked_and_seq2seq_studies(tmp_path, family):
    found, trials, _ = run(study(tmp_path, family, PAIRS), tmp_path / "run")
    assert len(trials) == 2 * (2 + 1)
    assert {trial.engine for trial in trials} == {"packed"}
    for placement in found["placements"].values():
        assert placement["num_trials"] == 2
        assert placement["perplexity"] > 1
        assert placement["bits_per_byte"] > 0
        assert placement["macro_f1"] is None


def test_a_classification_study(tmp_path):
    spec = study(tmp_path, "bert", CLASSES)
    found, trials, stored = run(spec, tmp_path / "run")
    assert found["base"]["perplexity"] is None
    reason = {"reason": "its classification head is trained whole", "num_trials": len(trials)}
    assert found["engines"] == {"packed": 0, "reference": len(trials), "reasons": [reason]}
    for placement in found["placements"].values():
        assert 0 <= placement["macro_f1"] <= 1
        assert placement["perplexity"] is None
        assert placement["accuracy_interval"] is not None
    rows = read_data(spec).test.rows
    base = load_base(
        ModelRef(name=str(tmp_path / "bert"), num_labels=3),
        dtype="fp32", base_dropout=0.0, device=CPU,
    )  # fmt: skip
    trial = trials[0]
    with quiet():
        model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "bert", num_labels=3)
        peft = PeftModel.from_pretrained(model, tmp_path / "run" / trial.adapter)
    again = score(peft, rows, collator=base.collator, device=CPU)
    assert again.nll == pytest.approx(stored[trial.digest].nll, rel=1e-6)
    assert again.predicted.tolist() == stored[trial.digest].predicted.tolist()


def test_a_trained_head_is_part_of_the_saved_adapter(tmp_path):
    _, trials, _ = run(study(tmp_path, "bert", CLASSES, rate="1e-3"), tmp_path / "run")
    config = json.loads((tmp_path / "run" / trials[0].adapter / "adapter_config.json").read_text())
    assert config["modules_to_save"] == ["bert.pooler.dense", "classifier"]


def test_adapters_on_a_new_head_are_refused(tmp_path):
    spec = study(tmp_path, "bert", CLASSES, rule="all | names(bert.pooler.dense)")
    with pytest.raises(StudyError, match=r"bert.pooler.dense belongs to the new classification"):
        run_study(spec, tmp_path / "run", Silent())
    assert not (tmp_path / "run").exists()


def test_a_plan_knows_the_classifier(tmp_path):
    spec = study(tmp_path, "bert", CLASSES)
    rows = read_rows(spec)
    anatomy = read_anatomy(rows.model)
    plan = plan_study(spec, anatomy, resolve_study(spec, anatomy), rows=rows)
    assert rows.model.num_labels == 3
    assert plan["placements"]["full"]["trainable_parameters"] > 0


def test_what_a_kind_of_model_cannot_read(tmp_path):
    spec = study(tmp_path, "t5", PAIRS)
    everything = replace(spec, data=replace(spec.data, loss_on="everything"))
    with pytest.raises(DataError, match="reads the prompt in its encoder"):
        read_data(everything)
    (tmp_path / "config.json").write_text('{"model_type": "whisper"}')
    with pytest.raises(ModelError, match="has no sequence classifier for model type whisper"):
        read_anatomy(ModelRef(name=str(tmp_path), num_labels=2))
