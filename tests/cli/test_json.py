"""What others build on: the keys of every `--json`, and null where nothing is known."""

import json
from pathlib import Path

import numpy as np
import pytest

from loratlas.measure.scores import SplitScore
from loratlas.study.records import BASE, PlacementRecord, TrialRecord
from loratlas.study.store import FILE_NAME, Store
from loratlas.train.outcome import Probe

SITE = {"path", "stack", "layer", "role", "d_in", "d_out", "num_experts", "kind", "reason"}
PLAN = {"trainable_parameters", "adapter_bytes", "flops_per_step", "peak_memory_bytes", "seconds"}
RESULT = {
    "trainable_parameters", "learning_rate", "split", "loss", "perplexity", "loss_interval",
    "seconds", "peak_memory_bytes", "num_trials", "num_failed",
}  # fmt: skip
CONTRAST = {"placement", "baseline", "difference", "interval", "p_adjusted", "verdict"}
TWO = ("full", "attention")


def placement_record(name: str, digest: str = "") -> PlacementRecord:
    return PlacementRecord(
        name=name,
        digest=digest or name,
        rule="all",
        trainable_parameters=100,
        matched_to=None,
        families={"attention": 100},
        adapters=[{"path": "a", "rank": 2, "alpha": 4.0}],
        warnings=[],
    )


def trial_record(name: str, seed: int, status: str, rate: float = 1e-2) -> TrialRecord:
    return TrialRecord(
        digest=f"{name} {rate} {seed}",
        placement_digest=name,
        learning_rate=rate,
        seed=seed,
        status=status,
        error=None if status == "done" else "diverged: the training loss is nan",
        engine="reference",
    )


def test_anatomy(cli, tiny_folder):
    said = cli("anatomy", tiny_folder, "--json")
    assert (said.code, said.err) == (0, "")
    found = said.json
    assert {"model", "digest", "num_layers", "sites"} <= found.keys()
    assert (found["model"], found["num_layers"]) == (str(tiny_folder), 3)
    assert len(found["digest"]) == 64
    assert len(found["sites"]) == 15
    assert all(site.keys() >= SITE for site in found["sites"])
    first = next(site for site in found["sites"] if site["path"] == "transformer.h.0.attn.c_attn")
    assert {key: first[key] for key in SITE - {"kind"}} == {
        "path": "transformer.h.0.attn.c_attn",
        "stack": "decoder",
        "layer": 0,
        "role": "attention.qkv",
        "d_in": 32,
        "d_out": 96,
        "num_experts": None,
        "reason": None,
    }


def test_place(cli, tiny_folder):
    said = cli("place", tiny_folder, "attention", "--rank", "2", "--json")
    assert (said.code, said.err) == (0, "")
    found = said.json
    assert found.keys() >= {"placement", "trainable_parameters", "warnings"}
    # Three layers of c_attn (32 + 96) and c_proj (32 + 32), of rank 2.
    assert found["trainable_parameters"] == 3 * 2 * (128 + 64)
    assert [set(adapter) for adapter in found["placement"]] == 6 * [{"path", "rank", "alpha"}]
    assert all(adapter["rank"] == 2 for adapter in found["placement"])
    assert all(set(warning) == {"code", "message"} for warning in found["warnings"])


def test_a_saved_placement_is_read_back(cli, tiny_folder, tmp_path):
    first = cli("place", tiny_folder, "attention:3", "--json")
    (tmp_path / "saved file.json").write_text(first.out)
    again = cli("place", tiny_folder, f'file("{tmp_path}/saved file.json")', "--json")
    assert again.json["placement"] == [
        {**adapter, "alpha": adapter["alpha"]} for adapter in first.json["placement"]
    ]


def test_plan(cli, study_folder):
    said = cli("plan", study_folder / "study.yaml", "--json")
    assert (said.code, said.err) == (0, "")
    found = said.json
    assert found.keys() >= {"placements", "num_trials", "power"}
    assert found["num_trials"] == 4
    assert list(found["placements"]) == ["full", "attention"]
    for placement in found["placements"].values():
        assert placement.keys() >= PLAN
        assert placement["adapter_bytes"] == 4 * placement["trainable_parameters"]
        assert isinstance(placement["trainable_parameters"], int)
    assert sorted(path.name for path in study_folder.iterdir()) == ["rows.jsonl", "study.yaml"]


def test_schema(cli, tmp_path):
    said = cli("schema", "--json")
    assert (said.code, said.err) == (0, "")
    assert said.json["type"] == "object"
    assert said.out == cli("schema").out
    written = cli("schema", "--out", tmp_path / "s c h é.json")
    assert (written.code, written.out) == (0, "")
    assert json.loads((tmp_path / "s c h é.json").read_text()) == said.json


def test_doctor(cli):
    said = cli("doctor", "--json")
    found = said.json
    assert said.code == 0
    assert found.keys() == {"ok", "checks", "environment"}
    assert found["ok"] is True
    assert all(check.keys() == {"name", "ok", "detail"} for check in found["checks"])
    assert found["environment"].keys() >= {"python", "torch", "transformers", "peft", "device"}


def test_doctor_of_a_broken_installation(cli, monkeypatch):
    from loratlas.study import checkup

    def fail(*_args, **_kwargs):
        raise OSError("[/red] the weights are gone \x1b[2J")

    monkeypatch.setattr(checkup, "load_base", fail)
    said = cli("doctor", "--json")
    assert said.code == 1
    assert (said.json["ok"], said.json["environment"]) == (False, {})
    said = cli("doctor")
    assert said.code == 1
    assert (
        r"FAILED load the bundled model and its data: OSError: [/red] the weights are gone \x1b[2J"
        in said.out
    )


@pytest.fixture
def store(tmp_path) -> Store:
    (tmp_path / "run").mkdir()
    return Store(tmp_path / "run" / FILE_NAME, writable=True)


def split(*nll: float) -> SplitScore:
    count = len(nll)
    return SplitScore(
        row=np.arange(count),
        nll=np.array(nll),
        num_tokens=np.full(count, 2),
        num_bytes=np.full(count, 9),
        num_correct=np.full(count, 1),
    )


def results_of(cli, store: Store, folder: Path) -> dict:
    """Return `results --json`, after the table was printed too."""
    store.close()
    assert cli("results", folder / "run").code == 0
    said = cli("results", folder / "run", "--json")
    assert (said.code, said.err) == (0, "")
    for placement in said.json["placements"].values():
        assert placement.keys() >= RESULT
    assert all(contrast.keys() >= CONTRAST for contrast in said.json["contrasts"])
    assert said.json["base"].keys() >= {"loss", "perplexity"}
    return said.json


def status_of(cli, folder: Path) -> dict:
    said = cli("status", folder / "run", "--json")
    assert (said.code, said.err) == (0, "")
    assert cli("status", folder / "run").code == 0
    return said.json


def test_a_run_that_has_only_begun(cli, store, tmp_path):
    found = results_of(cli, store, tmp_path)
    assert (found["placements"], found["contrasts"], found["study"]) == ({}, [], None)
    assert found["base"].pop("tasks") == {}
    assert set(found["base"].values()) == {None}
    stands = status_of(cli, tmp_path)
    assert (stands["done"], stands["num_trials"], stands["complete"]) == (0, None, False)


def test_a_run_of_which_only_the_placements_are_known(cli, store, tmp_path):
    store.set_placements([placement_record(name) for name in TWO])
    found = results_of(cli, store, tmp_path)
    for name in TWO:
        arm = found["placements"][name]
        assert arm["trainable_parameters"] == 100
        assert (arm["num_trials"], arm["num_failed"], arm["split"]) == (0, 0, "test")
        known = {"trainable_parameters", "num_trials", "num_failed", "split"}
        assert {arm[key] for key in (RESULT - known)} == {None}
        # A share of a model whose size is not known is not 100%.
        assert arm["percent_of_base_and_adapters"] is None
        assert arm["percent_saved_against_full_fine_tuning"] is None


def test_a_run_half_way(cli, store, tmp_path):
    begin(store)
    store.set_base_scores({"test": split(4.0, 6.0)})
    store.add_trial(trial_record("full", 0, "done"), {}, {"test": split(1.0, 3.0)})
    store.set_meta("chosen", {"full": 1e-2, "attention": 1e-2})
    found = results_of(cli, store, tmp_path)
    full, attention = found["placements"]["full"], found["placements"]["attention"]
    assert found["base"]["loss"] == 2.5
    assert (full["loss"], full["loss_interval"], full["num_trials"]) == (1.0, None, 1)
    assert (attention["loss"], attention["seconds"], attention["num_trials"]) == (None, None, 0)
    (contrast,) = found["contrasts"]
    assert (contrast["placement"], contrast["baseline"]) == ("attention", "full")
    assert (contrast["difference"], contrast["interval"], contrast["p_adjusted"]) == 3 * (None,)
    assert contrast["verdict"] == "cannot tell"
    assert contrast["says"].startswith("attention: no difference can be given.")
    stands = status_of(cli, tmp_path)
    assert (stands["done"], stands["missing"], stands["complete"]) == (1, 3, False)


def begin(store: Store) -> None:
    store.set_placements([placement_record(name) for name in TWO])
    store.set_meta("name", "tiny")
    store.set_meta("study", {"baseline": "full"})
    store.set_meta("num_trials", 4)
    store.set_meta("base_parameters", 9_900)
    store.set_meta("steps_per_trial", 10)
    probe = Probe(
        seconds_per_step=0.5, tokens_per_second=9.0, peak_memory_bytes=None, num_steps=6, engine="e"
    )
    store.set_probe("full", probe)


@pytest.mark.parametrize("rates", [[1e-2], [1e-3, 1e-2]])
def test_a_placement_whose_every_trial_diverged(cli, store, tmp_path, rates):
    """It keeps its line, its count and its nulls, with one rate and when none is eligible."""
    begin(store)
    for rate in rates:
        for seed in (0, 1):
            store.add_trial(trial_record("attention", seed, "diverged", rate), {}, {})
    for seed in (0, 1):
        store.add_trial(trial_record("full", seed, "done"), {}, {"test": split(1.0 + seed)})
    store.set_meta("chosen", {"full": 1e-2, "attention": rates[0] if len(rates) == 1 else None})
    store.set_meta("finished", True)
    found = results_of(cli, store, tmp_path)
    full, attention = found["placements"]["full"], found["placements"]["attention"]
    count = 2 * len(rates)
    assert (attention["num_trials"], attention["num_failed"]) == (count, count)
    assert (attention["loss"], attention["perplexity"], attention["loss_interval"]) == 3 * (None,)
    assert (full["loss"], full["num_failed"], full["seconds"]) == (0.75, 0, 5.0)
    assert found["contrasts"][0]["difference"] is None
    said = cli("results", tmp_path / "run")
    assert f"attention: {count} of {count} trials diverged or failed; no loss is known." in said.out
    stands = status_of(cli, tmp_path)
    assert (stands["diverged"], stands["complete"], len(stands["not_done"])) == (count, True, count)


def test_a_rate_with_a_diverged_seed_lends_no_loss(cli, store, tmp_path):
    begin(store)
    store.add_trial(trial_record("attention", 0, "done"), {}, {"test": split(0.1)})
    store.add_trial(trial_record("attention", 1, "diverged"), {}, {})
    store.set_meta("chosen", {"full": None, "attention": None})
    attention = results_of(cli, store, tmp_path)["placements"]["attention"]
    assert (attention["num_trials"], attention["num_failed"]) == (2, 1)
    assert (attention["loss"], attention["losses"]) == (None, {})


def test_a_loss_beyond_all_measure(cli, store, tmp_path):
    """The perplexity of a loss of 2,000 nats overflows: it is null, and no Infinity."""
    begin(store)
    store.set_base_scores({"test": split(4000.0, 4000.0)})
    for seed in (0, 1):
        store.add_trial(trial_record("full", seed, "done"), {}, {"test": split(4000.0, 4000.0)})
    store.set_meta("chosen", {"full": 1e-2})
    found = results_of(cli, store, tmp_path)
    assert (found["base"]["loss"], found["base"]["perplexity"]) == (2000.0, None)
    full = found["placements"]["full"]
    assert (full["loss"], full["perplexity"]) == (2000.0, None)
    assert full["loss_interval"] is None, "without any spread there is nothing to judge it by"
    assert store.scores(BASE)["test"].perplexity == float("inf")
