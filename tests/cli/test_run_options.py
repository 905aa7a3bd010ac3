"""What `loratlas run` may be told beside its study, and what is left where nothing was probed."""

import json

import pytest

PROBED = ("seconds", "seconds_per_step", "tokens_per_second", "peak_memory_bytes")


@pytest.fixture
def study(study_folder):
    """Trials that begin above the lowest layer, one of them where no pack can go."""
    file = study_folder / "study.yaml"
    upper = "  upper: all @ last(1)\n  tokens: embedding\n"
    file.write_text(file.read_text().replace("  attention: attention\n", upper))
    return file


def figures(said) -> dict:
    """Return the losses of a run, by placement."""
    assert said.code == 0, said
    return {name: found["losses"] for name, found in said.json["placements"].items()}


def test_no_option_changes_a_number(cli, study):
    def run(out, *options):
        return cli("run", study, "--out", study.parent / out, "--no-probe", "--json", *options)

    usual = figures(run("usual"))
    told = ("--prefix-memory", "0", "--prefix-file", "64MiB", "--pack", "1")
    for name, losses in figures(run("told", *told)).items():
        assert losses == pytest.approx(usual[name], rel=1e-5)


def test_what_a_run_without_probes_leaves(cli, study):
    out = study.parent / "run"
    said = cli("run", study, "--out", out, "--no-probe", "--json")
    assert said.code == 0, said
    assert "tokens: trained one after another: transformer.wte is no plain linear map" in said.err
    assert "probing" not in said.err
    assert said.json["engines"]["packed"] == 4
    assert said.json["engines"]["reference"] == 2
    for found in said.json["placements"].values():
        assert {found[key] for key in PROBED} == {None}
        assert found["loss_interval"] is not None

    assert cli("status", out, "--json").json["complete"] is True
    shown = cli("results", out)
    assert shown.code == 0
    assert "2 of 6 trials were trained one after another by the reference engine" in shown.out
    for table in ("resources", "founding"):
        assert cli("results", out, "--table", table).code == 0
        assert cli("results", out, "--table", table, "--json").json["tables"]
    recommended = cli("recommend", out, "--json")
    assert recommended.code == 0
    assert recommended.json["placement"] in said.json["placements"]
    assert cli("recommend", out, "--max-memory", "1GiB", "--json").json["placement"] is None
    assert cli("report", out, "--json").code == 0
    written = out / "report" / "report.md"
    words = written.read_text(encoding="utf-8").lower().split()
    assert not {"nan", "none", "inf"} & set(words)
    for file in (out / "report").rglob("*.json"):
        json.dumps(json.loads(file.read_text()), allow_nan=False)


def test_probes_that_were_left_out_can_be_taken_later(cli, study, monkeypatch):
    from loratlas.study import run as run_module
    from loratlas.study import training
    from loratlas.train.outcome import Probe

    out = study.parent / "run"
    assert cli("run", study, "--out", out, "--no-probe").code == 0
    probe = Probe(
        seconds_per_step=0.5, tokens_per_second=9.0, peak_memory_bytes=1, num_steps=6, engine="e"
    )
    monkeypatch.setattr(run_module, "probe", lambda _task: probe)
    monkeypatch.setattr(training, "run_pack", None)
    monkeypatch.setattr(training, "run_trial", None)
    said = cli("run", study, "--out", out, "--json")
    assert said.code == 0, said
    assert {found["seconds_per_step"] for found in said.json["placements"].values()} == {0.5}
