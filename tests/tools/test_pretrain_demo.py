"""Does the tool that made the bundled model still make one, the same each time?"""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from loratlas.bundled import demo_model_folder

TOOL = Path(__file__).parents[2] / "tools" / "pretrain_demo.py"
SMALL = {"steps": 3, "num_documents": 200, "vocabulary": 320, "layers": 2, "width": 16, "heads": 2}


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("pretrain_demo", TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_a_short_run_writes_a_model_that_loads(tool, tmp_path, monkeypatch, capsys):
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    monkeypatch.setattr(
        sys, "argv", ["pretrain_demo", f"--out={tmp_path / 'a'}", "--threads=1", *arguments]
    )
    tool.main()
    assert "step     3  loss " in capsys.readouterr().out
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "a", dtype=torch.float32)
    assert len(AutoTokenizer.from_pretrained(tmp_path / "a")) == 320
    assert model.config.n_layer == 2
    card = json.loads((tmp_path / "a" / "training.json").read_text())
    assert card["steps_done"] == 3
    assert card["tokens"] == 3 * 32 * 128


def test_the_same_seed_gives_the_same_files(tool, tmp_path):
    torch.set_num_threads(1)
    for out in ("a", "b"):
        tool.make(tool.Recipe(**SMALL), tmp_path / out)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_sequences_are_whole_documents_that_begin_with_or_without_the_end(tool):
    rows = [[number] * 50 for number in range(1, 60)]
    packed = tool.pack(rows, 0, tool.Recipe())
    assert packed.shape[1] == 128
    first = packed[:, 0] == 0
    assert 0 < first.sum() < len(packed)
    flat = [row.tolist() for row in packed]
    assert all(row[50:52] in ([0, row[51]], [row[1], 0]) for row in flat)


def test_the_shipped_model_was_made_by_this_recipe(tool):
    card = json.loads((demo_model_folder("demo:gpt2") / "training.json").read_text())
    assert card["recipe"] == {
        name: getattr(tool.Recipe(), name) for name in tool.Recipe.__dataclass_fields__
    }
