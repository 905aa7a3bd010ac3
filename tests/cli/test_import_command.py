"""``loratlas import``, and the commands that then serve a run that was not made here."""

import json

import numpy as np
import pytest

TABLE = "placement,seed,learning_rate,trainable_parameters,example,nll,tokens"


@pytest.fixture
def table(tmp_path):
    chance = np.random.default_rng(0)
    placements = {"full": (4000, 0.0), "cheap": (1000, 0.0), "poor": (500, 0.6)}
    rows = [
        f"{name},{seed},0.001,{count},{row},{8 * (2 + worse + chance.normal(0, 0.02)):.4f},8"
        for name, (count, worse) in placements.items()
        for seed in range(4)
        for row in range(20)
    ]
    base = [f"base,,,,{row},{8 * 3.5},8" for row in range(20)]
    file = tmp_path / "mine.csv"
    file.write_text("\n".join([TABLE, *rows, *base]) + "\n")
    return file


def test_results_recommend_status_and_report_serve_a_table(cli, table, tmp_path):
    run = tmp_path / "run"
    said = cli("import", table, "--out", run, "--json")
    assert said.code == 0
    assert said.json == {
        "run": str(run),
        "source": "csv",
        "baseline": "full",
        "num_placements": 3,
        "num_trials": 12,
        "notes": [],
    }
    found = cli("results", run, "--json").json
    assert [each["verdict"] for each in found["contrasts"]][1] == "worse"
    assert "mine: test rows" in cli("results", run).out
    assert cli("status", run, "--json").json["complete"] is True
    recommended = cli("recommend", run, "--json")
    assert recommended.code == 0
    assert recommended.json["placement"] == "cheap"
    report = cli("report", run, "--json")
    assert report.code == 0
    assert "index.html" in report.json["files"]


def test_what_was_imported_cannot_be_exported(cli, refused, table, tmp_path):
    assert cli("import", table, "--out", tmp_path / "run").code == 0
    assert refused("export", tmp_path / "run", "cheap:0", "--to", "peft") == (
        "cheap, seed 0, rate 0.001: the run holds no adapter of this trial"
    )


def test_method_comparison_is_told_without_verdicts(cli, tmp_path):
    results = tmp_path / "bench" / "results"
    results.mkdir(parents=True)
    for number, accuracy in enumerate((0.5, 0.4)):
        (results / f"{number}.json").write_text(json.dumps(_result(number, accuracy)))
    said = cli("import", tmp_path / "bench", "--out", tmp_path / "run")
    assert said.code == 0
    assert "recommend has nothing to compare" in said.out
    shown = cli("results", tmp_path / "run")
    assert shown.code == 0
    assert "bench: imported figures" in shown.out
    assert "0.4000" in shown.out
    recommended = cli("recommend", tmp_path / "run")
    assert recommended.code == 1
    assert "set aside. Its trials were imported without a loss" in recommended.out
    assert cli("report", tmp_path / "run", "--json").code == 0


def _result(number, accuracy):
    return {
        "run_info": {
            "experiment_name": f"lora/{number}",
            "train_config": {"model_id": "m", "seed": 0, "optimizer_kwargs": {"lr": 1e-4}},
            "peft_config": None,
        },
        "train_info": {
            "num_trainable_params": 10,
            "status": "success",
            "metrics": [{"test accuracy": accuracy}],
        },
    }


def test_an_adapter_is_told_as_a_placement(cli, tmp_path, tiny_folder):
    from made_runs import make_run

    run = make_run(tmp_path / "made", str(tiny_folder), "attention")
    said = cli("import", run / "adapters", "--out", tmp_path / "run", "--model", tiny_folder)
    assert said.code == 0
    assert cli("results", tmp_path / "run").code == 0
    assert cli("report", tmp_path / "run", "--json").code == 0


def test_wrong_requests(refused, table, tmp_path):
    assert refused("import", tmp_path / "nothing", "--out", tmp_path / "run").startswith(
        f"{tmp_path / 'nothing'}: there is no such file or folder; expected a CSV table with the "
        "columns placement, seed, learning_rate, trainable_parameters and loss; a folder of JSON "
    )
    assert "--baseline full2: there is no such placement" in refused(
        "import", table, "--out", tmp_path / "run", "--baseline", "full2"
    )
    assert "holds mine.csv" in refused("import", table, "--out", tmp_path)
