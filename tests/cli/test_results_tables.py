"""`results --table`: founding tables and what was taken, from a run that works or not."""

import json

import pytest

from loratlas.study import run as run_module
from loratlas.study.records import PlacementRecord, TrialRecord
from loratlas.study.store import FILE_NAME, Store
from loratlas.train.outcome import Probe


def one_seed(folder):
    file = folder / "study.yaml"
    file.write_text(
        file.read_text()
        .replace("  attention: attention\n", '  named: {rule: "names(c_proj)", match: none}\n')
        .replace("seeds: 2", "seeds: 1")
    )
    return file


@pytest.fixture
def run(cli, study_folder, monkeypatch):
    """A run of one seed, of which one placement could be probed."""
    from loratlas.errors import TrialError

    def probe(task):
        if len(task.placement.adapters) < 12:
            raise TrialError("out of memory")
        return Probe(
            seconds_per_step=0.5, tokens_per_second=9.0, peak_memory_bytes=2**20, num_steps=6,
            engine="e",
        )  # fmt: skip

    monkeypatch.setattr(run_module, "probe", probe)
    out = study_folder / "run"
    assert cli("run", one_seed(study_folder), "--out", out).code == 0
    return out


def by_placement(table):
    return {row["placement"]: row for row in table["rows"]}


def test_the_founding_tables_of_a_run(cli, run):
    said = cli("results", run, "--table", "founding")
    assert (said.code, said.err) == (0, "")
    for number in range(1, 5):
        assert f"Table {number}: " in said.out
    assert "deviation (1 by construction): perplexity / expected perplexity" in said.out
    found = cli("results", run, "--json").json["placements"]
    first, second, third, fourth = map(
        by_placement, cli("results", run, "--table", "founding", "--json").json["tables"]
    )
    full, named = found["full"], found["named"]
    assert first["full"]["training time"] == 3 * 0.5
    assert first["named"]["training time"] is None
    above = 100 * (named["loss"] / full["loss"] - 1)
    assert first["named"]["loss above baseline"] == pytest.approx(above)
    saved = 100 * (1 - named["trainable_parameters"] / full["trainable_parameters"])
    assert second["named"]["loss % per % saved"] == pytest.approx(above / saved)
    assert second["full"]["trainable parameters per second"] == full["trainable_parameters"] / 1.5
    assert third["named"]["deviation (1 by construction)"] == 1.0
    # Of c_proj, width 32: 64 features in attention and 160 in the feed-forward block.
    assert fourth["named"]["attention share"] == pytest.approx(100 * 64 / 224)


def test_what_the_run_took(cli, run):
    said = cli("results", run, "--table", "resources")
    assert (said.code, said.err) == (0, "")
    step, memory, *_ = cli("results", run, "--table", "resources", "--json").json["tables"]
    assert memory["title"] == "peak memory by phase, of the probe"
    for name, row in by_placement(step).items():
        (folder,) = (run / "adapters").glob(f"{name}-*")
        on_disk = sum(file.stat().st_size for file in folder.iterdir())
        assert row["bytes on disk"] == on_disk > row["planned bytes"]


def test_memory_by_phase_is_kept_by_trial_or_by_pack(cli, study_folder, run):
    apart = study_folder / "apart"
    study = one_seed(study_folder)
    study.write_text(study.read_text() + "engine: reference\n")
    assert cli("run", study, "--out", apart, "--no-probe").code == 0
    for out, engine in ((run, "packed"), (apart, "reference")):
        store = Store(out / FILE_NAME)
        trials = store.trials().values()
        store.close()
        for trial in trials:
            assert trial.engine == engine
            assert trial.adapter_bytes > 0
            # Of a pack the figures are totals, which no trial has for itself.
            memory = trial.memory if engine == "reference" else trial.pack["memory"]
            assert list(memory) == ["train", "score"]
            assert (trial.seconds is None, trial.pack is None) == (
                (True, False) if engine == "packed" else (False, True)
            )
        found = cli("results", out, "--json").json["placements"]["full"]["resources"]
        peak = found["trial_memory"]["train"]["peak_bytes"]
        assert (peak is None) == (engine == "packed")


@pytest.mark.parametrize("table", ["founding", "resources"])
def test_a_run_that_failed_altogether(cli, tmp_path, table):
    store = Store(tmp_path / FILE_NAME, writable=True)
    assert cli("results", tmp_path, "--table", table).code == 0  # it has only begun
    store.set_meta("study", {"baseline": "full"})
    record = PlacementRecord(
        name="full", digest="full", rule="all", trainable_parameters=100, matched_to=None,
        families={"attention": 100}, adapters=[], warnings=[],
    )  # fmt: skip
    store.set_placements([record])
    failed = TrialRecord(
        digest="x", placement_digest="full", learning_rate=1e-2, seed=0, status="failed",
        error="out of memory", engine="reference",
    )  # fmt: skip
    store.add_trial(failed, {}, {})
    store.close()
    said = cli("results", tmp_path, "--table", table)
    assert said.code == 0
    assert "nan" not in said.out.lower().split()
    json.dumps(cli("results", tmp_path, "--table", table, "--json").json, allow_nan=False)
