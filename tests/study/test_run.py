import json
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from loratlas.analysis.summary import results
from loratlas.data.batches import prepare
from loratlas.data.collate import Collator
from loratlas.errors import RunFolderError, StudyError, TrialError
from loratlas.measure.likelihood import score
from loratlas.placement.placement import place
from loratlas.study import pack_runner, training, trial_runner
from loratlas.study import run as run_module
from loratlas.study.folder import open_run
from loratlas.study.options import RunOptions
from loratlas.study.progress import Silent
from loratlas.study.records import BASE
from loratlas.study.run import run_study
from loratlas.study.spec import load_study
from loratlas.study.standing import standing
from loratlas.train.base import quiet
from loratlas.train.outcome import Probe
from loratlas.train.reference import DivergedError


@pytest.fixture(autouse=True)
def quick_probe(monkeypatch):
    """A probe costs a process each; `tests/train/test_probe.py` looks at the real one."""
    found = Probe(
        seconds_per_step=0.5, tokens_per_second=9.0, peak_memory_bytes=1, num_steps=6, engine="e"
    )
    monkeypatch.setattr(run_module, "probe", lambda _task: found)


def run(folder: Path, out: str = "run", engine=None, **changes: str) -> Path:
    """Run the folder's study, with some of its sections replaced, by an engine."""
    text = (folder / "study.yaml").read_text()
    for key, value in changes.items():
        text = re.sub(rf"^{key}:.*\n(  .*\n)*", "", text, flags=re.MULTILINE)
        text += f"{key}: {value}\n"
    if engine is not None:
        text += f"engine: {engine.key}\n"
    (folder / "changed.yaml").write_text(text)
    options = RunOptions() if engine is None else engine.options
    run_study(load_study(folder / "changed.yaml"), folder / out, Silent(), options)
    return folder / out


def store_meta(run_folder: Path, key: str):
    with closing(open_run(run_folder)) as store:
        return store.meta(key)


def packs_of(run_folder: Path) -> list[dict]:
    return store_meta(run_folder, "packs")


def losses(run_folder: Path) -> dict[str, dict[str, float]]:
    store = open_run(run_folder)
    found = {
        digest: {s: v.nll.tolist() for s, v in store.scores(digest).items()}
        for digest in store.trials()
    }
    store.close()
    return found


def test_two_runs_of_one_study_are_equal_bit_for_bit(study_folder, engine):
    first, second = (losses(run(study_folder, out, engine)) for out in ("a", "b"))
    assert len(first) == 4
    assert first == second


def test_repeating_a_run_does_nothing_again(study_folder, monkeypatch, engine):
    out = run(study_folder, engine=engine)
    before = losses(out)

    def never(*_args, **_kwargs):
        raise AssertionError("a finished trial was started again")

    monkeypatch.setattr(training, "run_trial", never)
    monkeypatch.setattr(training, "run_pack", never)
    monkeypatch.setattr(run_module, "probe", never)
    run(study_folder, engine=engine)
    assert losses(out) == before


def test_a_broken_off_run_goes_on_to_the_same_numbers(study_folder, engine):
    whole = losses(run(study_folder, "whole", engine))
    engine.interrupt(lambda seed: seed == 1)
    with pytest.raises(KeyboardInterrupt):
        run(study_folder, "broken", engine)
    assert len(losses(study_folder / "broken")) == 2
    engine.let_be()
    run(study_folder, "broken", engine)
    assert losses(study_folder / "broken") == whole


def test_every_adapter_loads_with_peft_and_gives_the_measured_loss(
    study_folder, tiny_folder, engine
):
    out = run(study_folder, engine=engine)
    study = load_study(study_folder / "study.yaml")
    data = prepare(study.data, AutoTokenizer.from_pretrained(tiny_folder), root=study.root)
    store = open_run(out)
    trials = store.trials().values()
    assert len(trials) == 4
    for trial in trials:
        model = AutoModelForCausalLM.from_pretrained(tiny_folder)
        with quiet():
            peft = PeftModel.from_pretrained(model, str(out / trial.adapter)).eval()
        found = score(peft, data.test.rows, collator=Collator(pad_id=0), device=torch.device("cpu"))
        measured = store.scores(trial.digest)["test"].loss
        if engine.name == "reference":
            assert measured == found.loss
        # The packed engine takes the same fp32 sums in another order.
        assert measured == pytest.approx(found.loss, rel=1e-6)
    store.close()


def test_training_changes_the_loss_and_placements_differ(study_folder):
    out = run(study_folder)
    store = open_run(out)
    found = results(store)
    base = store.scores(BASE)["test"].loss
    store.close()
    assert found["base"]["loss"] == base
    arms = found["placements"]
    assert arms["full"]["loss"] < base
    assert arms["full"]["loss"] != arms["attention"]["loss"]
    assert [c["placement"] for c in found["contrasts"]] == ["attention"]


def test_the_rate_is_chosen_on_validation_and_the_other_seeds_use_it(study_folder):
    out = run(
        study_folder,
        training="{steps: 3, batch: 4, learning_rate: [1e-9, 1e-2]}",
        seeds="3",
        sweep_seeds="1",
    )
    store = open_run(out)
    trials = list(store.trials().values())
    assert store.meta("chosen") == {"full": 1e-2, "attention": 1e-2}
    assert sorted((t.seed, t.learning_rate) for t in trials) == sorted(
        2 * [(0, 1e-9), (0, 1e-2), (1, 1e-2), (2, 1e-2)]
    )
    found = results(store)["placements"]["full"]
    assert (found["learning_rate"], found["num_trials"]) == (1e-2, 3)
    assert standing(store)["complete"]
    store.close()


def test_a_diverged_trial_is_a_record_and_is_not_tried_again(study_folder, engine):
    def diverges(seed, _rate):
        if seed == 1:
            raise DivergedError("diverged: the training loss is nan at step 2 of 3")

    engine.disturb(diverges)
    out = run(study_folder, engine=engine)
    store = open_run(out)
    stands, found = standing(store), results(store)
    store.close()
    assert (stands["done"], stands["diverged"], stands["missing"]) == (2, 2, 0)
    arm = found["placements"]["full"]
    assert (arm["num_trials"], arm["num_failed"]) == (2, 1)
    assert list(arm["losses"]) == ["0"]
    engine.interrupt(lambda _seed: True)
    run(study_folder, engine=engine)


def test_a_failed_trial_is_a_record_and_is_tried_again(study_folder, engine):
    def fails(seed, _rate):
        if seed == 1:
            raise RuntimeError("out of memory")

    engine.disturb(fails)
    out = run(study_folder, engine=engine)
    assert "out of memory" in (out / "run.log").read_text()
    store = open_run(out)
    assert standing(store)["failed"] == 2
    store.close()
    engine.let_be()
    run(study_folder, engine=engine)
    store = open_run(out)
    assert standing(store)["complete"]
    assert sorted(t.attempts for t in store.trials().values()) == [1, 1, 2, 2]
    store.close()
    assert losses(out) == losses(run(study_folder, "clean", engine))


def test_a_failed_probe_is_said_and_the_trials_go_on(study_folder, monkeypatch):
    def fail(_task):
        raise TrialError("the process ended")

    monkeypatch.setattr(run_module, "probe", fail)
    out = run(study_folder)
    store = open_run(out)
    found = results(store)["placements"]["full"]
    assert found["seconds"] is None
    assert found["loss"] is not None
    store.close()


def test_a_folder_of_another_study_is_refused_and_left_alone(study_folder):
    out = run(study_folder)
    before = losses(out)
    with pytest.raises(
        RunFolderError, match=r"holds another study: lora.rank was 2, now 4"
    ) as caught:
        run(study_folder, lora="{rank: 4, alpha: 8}")
    assert "give another folder with --out" in str(caught.value)
    assert losses(out) == before


def test_changed_data_and_a_changed_base_are_another_study(study_folder, tmp_path):
    run(study_folder)
    rows = (study_folder / "rows.jsonl").read_text()
    (study_folder / "rows.jsonl").write_text(rows.replace("number 3", "number three"))
    with pytest.raises(RunFolderError, match="data_rows was"):
        run(study_folder)


def test_several_rates_need_validation_rows(study_folder):
    with pytest.raises(StudyError, match="several learning rates need validation rows"):
        run(
            study_folder,
            data="{source: rows.jsonl, format: prompt_completion, train: 32, test: 12}",
            training="{steps: 3, batch: 4, learning_rate: [1e-3, 1e-2]}",
        )
    assert not (study_folder / "run").exists()


def test_rows_that_the_base_cannot_read_are_refused(study_folder, tiny_folder, tmp_path):
    long = "{source: rows.jsonl, format: prompt_completion, train: 8, test: 8, max_length: 200}"
    text = (study_folder / "rows.jsonl").read_text()
    (study_folder / "rows.jsonl").write_text(text.replace(" In ", " In or near " + "Oslo, " * 30))
    with pytest.raises(StudyError, match=r"and .* reads at most 64"):
        run(study_folder, data=long)
    assert not (study_folder / "run").exists()


# Ends itself as the system would: at a step of the second pack, or between the records of it.
KILLED = """\
import os, signal, sys
from loratlas.cli.main import main
from loratlas.study import pack_runner
from loratlas.study.store import Store

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def fit_pack(*arguments, on_step, **more):
    packs.append(1)
    def step(done, total):
        if len(packs) == 2 and done == 2:
            die()
    return real_fit(*arguments, on_step=step, **more)

def add_trials(store, finished, claim=None):
    added.append(1)
    real_add(store, halved(finished) if len(added) == last else finished, claim)

def halved(finished):
    for each in finished:
        yield each
        die()

packs, added = [], []
real_fit, real_add = pack_runner.fit_pack, Store.add_trials
where, last = sys.argv[1], int(sys.argv[2])
if where == "a step":
    pack_runner.fit_pack = fit_pack
else:
    Store.add_trials = add_trials
main(sys.argv[3:])
"""


@pytest.mark.parametrize(
    ("key", "where", "last"),
    [
        pytest.param("auto", "a step", 0, marks=pytest.mark.slow),
        ("auto", "the records", 2),
        pytest.param("reference", "the records", 3, marks=pytest.mark.slow),
    ],
)
def test_kill_9_loses_only_what_ran(study_folder, key, where, last):
    """The real command, killed halfway, ends with the packs and numbers of a whole run."""
    study = study_folder / "study.yaml"
    study.write_text(study.read_text() + f"engine: {key}\n")
    killed, whole = study_folder / "killed", study_folder / "whole"
    command = ["run", study, "--out", killed, "--no-probe", "--pack", "2"]
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, where, str(last), *map(str, command)],
        capture_output=True,
        check=False,
    )
    assert ended.returncode == -9, ended.stderr
    kept, packs = losses(killed), packs_of(killed)
    assert len(kept) == 2
    assert sorted(trial for pack in packs for trial in pack["trials"]) == sorted(
        store_meta(killed, "wanted")
    )
    run_study(load_study(study), killed, Silent(), RunOptions(probe=False))
    run_study(load_study(study), whole, Silent(), RunOptions(probe=False, trials_per_pack=2))
    assert packs_of(killed) == packs == packs_of(whole)
    assert losses(killed) == losses(whole)
    assert losses(killed).items() >= kept.items()


def test_a_choice_that_changes_after_a_retry_leaves_nothing_out(study_folder, engine):
    """The better rate fails once; tried again it wins, and then its other seeds are missing."""
    sections = {
        "training": "{steps: 3, batch: 4, learning_rate: [1e-9, 1e-2]}",
        "seeds": "3",
        "sweep_seeds": "1",
    }

    def fails(_seed, rate):
        if rate == 1e-2:
            raise RuntimeError("out of memory")

    engine.disturb(fails)
    out = run(study_folder, engine=engine, **sections)
    engine.let_be()
    engine.interrupt(lambda seed: seed > 0)
    with pytest.raises(KeyboardInterrupt):
        run(study_folder, engine=engine, **sections)
    store = open_run(out)
    stands = standing(store)
    store.close()
    assert not stands["complete"]
    assert (stands["num_trials"], stands["done"], stands["missing"]) == (8, 4, 4)
    engine.let_be()
    run(study_folder, engine=engine, **sections)
    store = open_run(out)
    stands = standing(store)
    assert stands["complete"]
    assert (stands["num_trials"], stands["done"], stands["missing"]) == (8, 8, 0)
    assert results(store)["placements"]["full"]["num_trials"] == 3
    store.close()


def test_a_file_of_sites_that_changed_is_another_study(study_folder, anatomy):
    saved = place(anatomy, "attention @ last(1)", rank=2, alpha=4)
    (study_folder / "sites.json").write_text(json.dumps(saved.to_json()))
    sections = {"placements": "{full: all, saved: 'file(sites.json)'}"}
    run(study_folder, **sections)
    saved = place(anatomy, "attention @ last(2)", rank=2, alpha=4)
    (study_folder / "sites.json").write_text(json.dumps(saved.to_json()))
    with pytest.raises(RunFolderError, match=r"resolved\.saved was"):
        run(study_folder, **sections)


def test_a_run_does_not_go_on_with_another_kind_of_device(study_folder, monkeypatch):
    out = run(study_folder)
    before = losses(out)
    real = run_module.environment
    monkeypatch.setattr(run_module, "environment", lambda device: real(device) | {"device": "cuda"})
    with pytest.raises(RunFolderError, match="its trials ran on cpu, this is cuda"):
        run(study_folder)
    assert losses(out) == before


def test_what_else_has_changed_since_is_said(study_folder, monkeypatch):
    run(study_folder)
    said = []
    listener = Silent()
    listener.say = said.append
    real = run_module.environment
    monkeypatch.setattr(run_module, "environment", lambda device: real(device) | {"torch": "9"})
    run_study(load_study(study_folder / "changed.yaml"), study_folder / "run", listener)
    assert any("since this run began, torch was" in line for line in said)


def test_adapters_that_end_as_no_numbers_have_diverged(study_folder, monkeypatch, engine):
    def last_step_explodes(base, model, *args, **kwargs):
        found = real_fit(base, model, *args, **kwargs)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.fill_(float("nan"))
        return found

    def last_step_of_the_pack_explodes(flow, *args, **kwargs):
        found = real_fit_pack(flow, *args, **kwargs)
        for slot in flow.slots:
            for site in slot.sites.values():
                site.b.fill_(float("nan"))
        return found

    real_fit, real_fit_pack = trial_runner.fit, pack_runner.fit_pack
    monkeypatch.setattr(trial_runner, "fit", last_step_explodes)
    monkeypatch.setattr(pack_runner, "fit_pack", last_step_of_the_pack_explodes)
    store = open_run(run(study_folder, engine=engine))
    assert {trial.status for trial in store.trials().values()} == {"diverged"}
    store.close()


def test_a_warm_up_that_outlasts_the_training_is_refused(study_folder):
    with pytest.raises(StudyError, match="8 steps of warm-up, and a trial has 8 steps"):
        run(study_folder, training="{epochs: 1, batch: 4, warmup: 8, learning_rate: 1e-2}")
    assert not (study_folder / "run").exists()
