"""``loratlas export`` and its messages."""

import shutil
import subprocess
import sys

import pytest

from made_runs import change_trial, make_run


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_folder):
    folder = tmp_path_factory.mktemp("made") / "run"
    return make_run(folder, str(tiny_folder), "attention:2 + feed_forward.up:4")


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


def test_it_writes_beside_the_adapters_where_no_folder_is_given(cli, run):
    said = cli("export", run, "placed", "--to", "uniform", "--json")
    assert said.code == 0
    assert said.json == {
        "placement": "placed",
        "seed": 0,
        "learning_rate": 0.003,
        "trial": "00ab" * 16,
        "target": "uniform",
        "folder": str(run / "exports/seed0-uniform"),
        "files": ["README.md", "adapter_config.json", "adapter_model.safetensors"],
        "trainable_parameters": said.json["trainable_parameters"],
        "logits_differ_by": said.json["logits_differ_by"],
        "pushed_to": None,
    }
    assert 0 <= said.json["logits_differ_by"] < 3e-6
    shown = cli("export", run, "placed:0", "--to", "axolotl", "--out", run.parent / "a")
    assert shown.out.splitlines() == [
        "placed, seed 0, for axolotl: axolotl.yaml",
        str(run.parent / "a"),
    ]


def test_a_folder_that_holds_something_is_left_alone(refused, run, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("kept")
    assert refused("export", run, "placed", "--to", "peft", "--out", out) == (
        f"{out}: holds mine.txt; give an empty or a new folder with --out"
    )
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


def test_an_empty_folder_is_filled(cli, run, tmp_path):
    (tmp_path / "out").mkdir()
    assert cli("export", run, "placed", "--to", "peft", "--out", tmp_path / "out").code == 0
    assert (tmp_path / "out/adapter_config.json").is_file()


def test_wrong_requests(refused, run, tmp_path):
    assert refused("export", run, "placed", "--to", "axolot") == (
        "--to axolot: there is no such target (did you mean axolotl?); it is one of peft, uniform, "
        "merged, trl, axolotl, llama-factory, unsloth, vllm"
    )
    assert refused("export", tmp_path / "nothing", "placed", "--to", "peft").startswith(
        f"{tmp_path / 'nothing'}: no such run folder"
    )
    assert "no placement or trial of this run has this name" in refused(
        "export", run, "plcaed", "--to", "peft"
    )
    assert refused("export", run, "placed", "--to", "llama-factory") == (
        "placed, seed 0: llama-factory cannot express ranks that differ by site (2, 4): it takes "
        "one for all; use --to trl, axolotl or unsloth"
    )
    change_trial(run, 0, status="failed", error="out of memory")
    assert refused("export", run, "placed", "--to", "peft") == (
        "placed, seed 0, rate 0.003: this trial failed: out of memory; "
        "only a trial that is done can be exported"
    )
    assert not (run / "exports").exists()


def test_configurations_load_no_torch(run):
    code = (
        "import sys\n"
        "from contextlib import closing\nfrom pathlib import Path\n"
        "from loratlas.export.write import export\n"
        "from loratlas.study.folder import open_run\n"
        f"run = Path({str(run)!r})\n"
        "with closing(open_run(run)) as store:\n"
        "    for to in ('axolotl', 'unsloth', 'peft'):\n"
        "        export(run, store, 'placed', to)\n"
        "assert not {'torch', 'transformers', 'peft'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
