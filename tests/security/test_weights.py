"""Weights are safetensors: a pickle runs what it was made to run, and none is read."""

import json
import pickle
import shutil
from contextlib import closing

import pytest

from loratlas.anatomy.read import read
from loratlas.errors import ModelError, RunFolderError
from loratlas.study.audit_run import Asked, audit_run
from loratlas.study.folder import open_run
from loratlas.study.inside import adapter_fault
from loratlas.train.base import load_base, pick_device
from loratlas.train.trial import ModelRef

from .conftest import ADAPTER, Bomb, Said


def load(folder):
    ref = ModelRef(name=str(folder))
    return load_base(ref, dtype="fp32", base_dropout=0.0, device=pick_device("cpu"))


@pytest.fixture
def bomb(tmp_path):
    """Bytes that write a file when they are unpickled, and the file; shown to go off."""
    file = tmp_path / "went-off"
    armed = pickle.dumps(Bomb(file))
    pickle.loads(armed)
    file.unlink()
    return armed, file


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "tf_model.h5"])
def test_a_pickled_base_is_refused(tiny_folder, tmp_path, bomb, name):
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(bomb[0])
    with pytest.raises(ModelError, match=r"the model cannot be loaded: .*model\.safetensors"):
        load(folder)
    assert not bomb[1].exists()


def test_a_pickle_beside_safetensors_is_left_alone(tiny_folder, tmp_path, bomb):
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt"):
        (folder / name).write_bytes(bomb[0])
    assert load(folder).digest == load(tiny_folder).digest
    assert not bomb[1].exists()


def test_adapters_beside_a_base_are_refused(tiny_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(ModelError, match="adapters lie beside the model"):
        read(folder)


def test_a_pickled_adapter_of_a_run_is_refused(run_folder, bomb):
    weights = run_folder / ADAPTER / "adapter_model.safetensors"
    assert adapter_fault(run_folder, ADAPTER) is None
    weights.unlink()
    (run_folder / ADAPTER / "adapter_model.bin").write_bytes(bomb[0])
    said = (
        f"its adapter has no adapter_model.safetensors, and no other weights are read ({ADAPTER})"
    )
    assert adapter_fault(run_folder, ADAPTER) == said
    with closing(open_run(run_folder)) as store, pytest.raises(RunFolderError) as caught:
        audit_run(run_folder, store, Asked(), Said())
    assert str(caught.value) == f"{run_folder}: no trial to audit: full, seed 0: {said}"
    assert not bomb[1].exists()
