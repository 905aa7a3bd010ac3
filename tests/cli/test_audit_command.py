"""The audit of a run, from the command: what it gives, what it leaves out, what it refuses."""

import json
import math
import shutil
from contextlib import closing

import pytest

from loratlas.analysis.audit import audit
from loratlas.cli.progress import TerminalListener
from loratlas.study import run as run_module
from loratlas.study.audit_run import Asked, audit_run
from loratlas.study.folder import FILE_NAME, open_run
from loratlas.study.records import TrialRecord
from loratlas.study.run import run_study
from loratlas.study.spec import load_study
from loratlas.study.store import Store
from loratlas.train.outcome import Probe

VARIANT = {
    "name", "description", "source", "applies", "reason", "base", "per_placement", "per_seed",
    "ratio", "ranking", "agrees", "contradicts", "swaps",
}  # fmt: skip


STUDY = """\
name: tiny
model: {model}
data:
  source: rows.jsonl
  format: prompt_completion
  train: 16
  validation: 8
  test: 12
  max_length: 48
placements:
  full: all
  attention: attention
baseline: full
lora: {{rank: 2, alpha: 4}}
training: {{steps: 2, batch: 4, learning_rate: 1e-2}}
seeds: 2
"""


def _answer(number):
    """Answers of several lengths, so that rows are padded and batches weigh differently."""
    return " In " + ", ".join(["Oslo", "Rome", "Lima", "Cairo"][: 1 + number % 4]) + f" {number}."


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_folder):
    """A folder with a study, its data and its finished run: two placements, two seeds."""
    folder = tmp_path_factory.mktemp("audited")
    lines = [
        json.dumps({"prompt": f"Where is number {i}?", "completion": _answer(i)}) for i in range(60)
    ]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "study.yaml").write_text(STUDY.format(model=tiny_folder))
    quick = Probe(
        seconds_per_step=0.5, tokens_per_second=9.0, peak_memory_bytes=1, num_steps=6, engine="e"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "probe", lambda _task: quick)
        with TerminalListener() as listener:
            run_study(load_study(folder / "study.yaml"), folder / "run", listener)
    return folder


@pytest.fixture
def study_folder(finished, tmp_path):
    """The folder of the study, to be changed."""
    return shutil.copytree(finished, tmp_path / "copy")


@pytest.fixture
def run(study_folder):
    """Its run folder."""
    return study_folder / "run"


@pytest.fixture(scope="module")
def plain(finished):
    """The audit of the run as it is."""
    with closing(open_run(finished / "run")) as store, TerminalListener() as listener:
        found = audit_run(finished / "run", store, Asked(), listener)
        return audit(found, store.meta("name"))


def by_name(audit):
    return {variant["name"]: variant for variant in audit["variants"]}


def test_it_gives_every_definition_for_every_placement(finished, plain, cli):
    results = cli("results", finished / "run", "--json").json
    assert (plain["study"], plain["split"], plain["num_rows"]) == ("tiny", "test", 12)
    assert plain["batch"] == 4
    assert all(set(variant) == VARIANT for variant in plain["variants"])
    corpus = by_name(plain)["corpus"]
    for name, placement in results["placements"].items():
        assert plain["loss"][name] == pytest.approx(placement["loss"], rel=1e-6)
        assert corpus["per_placement"][name] == pytest.approx(placement["perplexity"], rel=1e-5)
        for seed, loss in placement["losses"].items():
            assert corpus["per_seed"][name][seed] == pytest.approx(math.exp(loss), rel=1e-5)
        assert corpus["ratio"][name] == pytest.approx(1)
    assert corpus["base"] == pytest.approx(results["base"]["perplexity"], rel=1e-5)
    assert (corpus["agrees"], corpus["contradicts"], corpus["swaps"]) == (True, False, [])
    assert sorted(corpus["ranking"]) == ["attention", "full"]


def test_definitions_that_follow_from_the_loss_agree_with_it(plain):
    """A base-2 logarithm, bytes and words only stretch the corpus loss."""
    variants = by_name(plain)
    for name in ("base_2_loss", "base_2_power", "per_word", "per_byte"):
        assert variants[name]["agrees"] is True
        assert variants[name]["ranking"] == variants["corpus"]["ranking"]


def test_each_variant_says_what_it_does_and_why_it_does_not_apply(plain):
    for variant in plain["variants"]:
        assert variant["description"].endswith(".")
        assert variant["applies"] == (variant["reason"] is None)
        assert variant["applies"] == (variant["base"] is not None)
        assert (variant["agrees"] is None) == (not variant["applies"])


def test_a_shorter_window_lets_the_strided_variants_apply(finished, cli):
    variants = by_name(cli("audit", finished / "run", "--window", 12, "--batch", 3, "--json").json)
    assert variants["strided_windows"]["applies"]
    assert "batch_means_3" in variants


def test_for_a_person_it_names_what_was_found(finished, cli):
    said = cli("audit", finished / "run", "--split", "validation")
    assert said.code == 0
    assert "tiny: 8 validation rows" in said.out
    assert "labels_not_shifted" in said.out
    assert "Not applicable here: " in said.out
    assert "dropout_on (no dropout here)" in said.out
    tables = said.out[: said.out.index("Perplexity: exp of")]
    assert max(map(len, tables.splitlines())) <= 80


def test_one_seed_is_said_to_be_one(run, cli):
    for adapter in run.glob("adapters/*seed1*"):
        shutil.rmtree(adapter)
    found = cli("audit", run, "--json").json
    assert found["seeds"] == {"full": [0], "attention": [0]}
    assert all(variant["contradicts"] is not True for variant in found["variants"])
    assert "One seed: no spread is known" in cli("audit", run).out


def test_trials_that_cannot_be_read_are_named_and_left_out(run, cli):
    store = Store(run / FILE_NAME, writable=True)
    full, attention = store.placements()
    rate = store.meta("chosen")["full"]
    bad = TrialRecord(
        digest="0" * 64,
        placement_digest=full.digest,
        learning_rate=rate,
        seed=7,
        status="diverged",
        error="diverged: the training loss is nan at step 2 of 3",
        engine="reference",
    )
    store.add_trial(bad, {}, {})
    gone = next(t for t in store.trials().values() if t.placement_digest == attention.digest)
    store.close()
    shutil.rmtree(run / gone.adapter)
    said = cli("audit", run, "--json")
    assert said.code == 0
    found = said.json
    assert found["seeds"] == {"full": [0, 1], "attention": [1 - gone.seed]}
    assert [(trial["placement"], trial["seed"]) for trial in found["left_out"]] == [
        ("full", 7),
        ("attention", gone.seed),
    ]
    told = cli("audit", run).out
    assert "Left out: full, rate 0.01, seed 7: diverged: the training loss" in told
    assert f"its adapter is not in the run folder ({gone.adapter})" in told


def test_a_run_without_adapters_holds_nothing_to_audit(run, refused):
    shutil.rmtree(run / "adapters")
    message = refused("audit", run)
    assert message.startswith(f"{run}: no trial to audit: full, seed 0: its adapter is not in")
    assert message.endswith("; and 3 more")


def test_a_run_that_has_only_begun_holds_nothing_to_audit(run, refused):
    store = Store(run / FILE_NAME)
    kept = {key: store.meta(key) for key in ("study", "identity", "environment")}
    placements = store.placements()
    store.close()
    (run / FILE_NAME).unlink()
    begun = Store(run / FILE_NAME, writable=True)
    message = refused("audit", run)
    assert message == f"{run}: no trial to audit: the run has only begun"
    for key, value in kept.items():
        begun.set_meta(key, value)
    begun.set_placements(placements)
    begun.close()
    message = refused("audit", run)
    assert message == (f"{run}: no trial to audit: full: no trial of it has ended yet; and 1 more")


def test_an_unfinished_run_is_audited_as_far_as_it_goes(run, cli):
    store = Store(run / FILE_NAME, writable=True)
    store.set_meta("finished", False)
    store.close()
    assert cli("audit", run, "--json").json["complete"] is False
    assert "The run is not complete" in cli("audit", run).out


def test_a_loss_that_is_no_longer_the_stored_one_is_an_error(run, refused):
    """Adapters that were trained on: the figures of the run are not theirs."""
    from safetensors.torch import load_file, save_file

    weights = next(run.glob("adapters/full-*seed0*/adapter_model.safetensors"))
    save_file({name: tensor * 1.5 for name, tensor in load_file(weights).items()}, weights)
    message = refused("audit", run, code=1)
    assert message.startswith("full, seed 0: the test loss is ")
    assert "more than 1e-06 apart" in message


def test_rows_that_have_changed_are_refused(run, study_folder, refused):
    file = study_folder / "rows.jsonl"
    file.write_text("\n".join(reversed(file.read_text().splitlines())) + "\n")
    assert refused("audit", run).startswith("the rows are no longer those that the run was made")


def test_data_elsewhere_are_found_through_the_study_file(run, study_folder, tmp_path_factory, cli):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    moved = shutil.move(run, elsewhere / "deep" / "er" / "run")
    assert cli("audit", moved).code == 2
    said = cli("audit", moved, "--study", study_folder / "study.yaml", "--json")
    assert said.code == 0


def test_a_masked_language_model_is_not_served_yet(run, refused):
    from tiny_models import fresh

    store = Store(run / FILE_NAME, writable=True)
    study = store.meta("study")
    bert = run / "bert"
    fresh("bert").save_pretrained(bert)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(f"{study['model']['name']}/{file}", bert)
    store.set_meta("study", {**study, "model": {**study["model"], "name": str(bert)}})
    store.close()
    message = refused("audit", run)
    assert "the audit knows the variants of causal language models" in message
    assert message.endswith("masked")


def test_explain_recovers_what_unshifted_labels_would_have_said(cli, tiny_folder, finished):
    data = finished / "rows.jsonl"
    where = ("--explain", "3", "20", tiny_folder, data, "--rows", "10", "--json")
    plain = cli("audit", *where).json
    assert plain["num_rows"] == 10
    wrong = by_name(plain)["labels_not_shifted"]["perplexity"]
    loss = plain["trainer_losses"]["batch_means_8"]
    asked = ("--explain", f"{loss:.5f}", f"{wrong:.2f}", *where[3:])
    found = cli("audit", *asked).json
    assert found["same_loss"]
    assert "labels_not_shifted" in found["reproduces"]
    assert "corpus" not in found["reproduces"]
    said = cli("audit", *asked[:-1])
    assert "This model on these rows gives both" in said.out
    assert "labels_not_shifted" in said.out.split("under: ")[1]


def test_explain_says_none_for_an_impossible_pair(cli, tiny_folder, finished):
    data = finished / "rows.jsonl"
    said = cli("audit", "--explain", "6.0", "1e15", tiny_folder, data)
    assert said.code == 0
    assert "None does: no definition comes near to loss 6 and perplexity" in said.out


def test_explain_says_when_it_cannot_tell(cli, tiny_folder, finished):
    said = cli("audit", "--explain", "2.0", "8.0", tiny_folder, finished / "rows.jsonl")
    assert "Cannot tell: the model's own loss is " in said.out


def test_explain_reads_bundled_tasks(cli):
    found = cli(
        "audit", "--explain", "3.0", "20.1", "demo:gpt2", "demo:facts", "--rows", "6", "--json"
    ).json
    assert (found["model"], found["data"], found["num_rows"]) == ("demo:gpt2", "demo:facts", 6)
    assert found["given"]["ratio"] == pytest.approx(20.1 / math.exp(3))
