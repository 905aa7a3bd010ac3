"""Code that comes with a model runs when it is asked for by name, and no other code ever does."""

import json
import shutil
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest
from transformers import dynamic_module_utils

from loratlas.anatomy.read import read
from loratlas.data.sources import read_source
from loratlas.data.spec import DataSpec
from loratlas.errors import DataError, ModelError
from loratlas.study.audit_run import Asked, audit_run
from loratlas.study.folder import open_run
from loratlas.train.base import load_base, load_tokenizer, pick_device
from loratlas.train.trial import ModelRef

from .conftest import Said

CODE = """
from pathlib import Path
from transformers import GPT2Config, GPT2LMHeadModel
Path({mark!r}).touch()
class OwnConfig(GPT2Config):
    model_type = "own"
class OwnModel(GPT2LMHeadModel):
    config_class = OwnConfig
"""
AUTO_MAP = {
    "AutoConfig": "own.OwnConfig",
    "AutoModelForCausalLM": "own.OwnModel",
    "AutoTokenizer": ["own.OwnTokenizer", None],
}


@pytest.fixture
def mark(tmp_path) -> Path:
    """There once code of somebody else has run."""
    return tmp_path / "has-run"


@pytest.fixture
def own_code(tiny_folder, tmp_path, mark, monkeypatch) -> Path:
    """The tiny model, with code of its own that leaves a mark."""
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tmp_path / "own"
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": AUTO_MAP, "architectures": ["OwnModel"]}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(CODE.format(mark=str(mark)))
    return folder


def test_the_anatomy_runs_no_code_unasked(own_code, mark):
    with pytest.raises(ModelError, match="trust_remote_code allows it to run"):
        read(own_code)
    assert not mark.exists()


# transformers and the code of this model warn about each other.
@pytest.mark.filterwarnings("ignore")
def test_the_anatomy_runs_code_when_it_is_allowed(own_code, mark):
    assert read(own_code, trust_remote_code=True).sites
    assert mark.exists()
    with pytest.raises(ModelError):  # nor is what was read then served from the cache
        read(own_code)


def test_the_weights_are_loaded_without_it(own_code, mark):
    ref = ModelRef(name=str(own_code))
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_base(ref, dtype="fp32", base_dropout=0.0, device=pick_device("cpu"))
    assert not mark.exists()


def test_the_tokenizer_is_loaded_without_it(own_code, mark):
    with suppress(ModelError):  # it may be one that needs no code
        load_tokenizer(ModelRef(name=str(own_code)))
    assert not mark.exists()


@pytest.mark.parametrize(
    "asks",
    [
        {"attn_implementation": "somebody/kernel"},
        {"_attn_implementation": "kernels-community/flash-attn"},
        {"experts_implementation": "somebody/kernel@main"},
        {"text_config": {"attn_implementation": {"": "somebody/kernel"}}},
    ],
)
def test_a_configuration_may_not_fetch_a_kernel(tiny_folder, tmp_path, asks):
    config = json.loads((tiny_folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | asks))
    with pytest.raises(ModelError, match=r"its configuration asks for code on the hub \(\w+.*/"):
        read(tmp_path)


def test_the_script_of_a_data_set_is_not_run(tmp_path, mark, monkeypatch):
    folder = tmp_path / "here" / "facts"
    folder.mkdir(parents=True)
    (folder / "facts.py").write_text(CODE.format(mark=str(mark)))
    monkeypatch.chdir(folder.parent)
    with pytest.raises(DataError):
        read_source(DataSpec(source="facts", format="text"), root=tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["pandas", "json", "csv", "webdataset"])
def test_a_reader_is_no_data_set(tmp_path, monkeypatch, name):
    """Given nothing to read, it would take what lies in the current folder."""
    (tmp_path / "train.json").write_text('{"text": "private"}\n')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        read_source(DataSpec(source=name, format="text"), root=tmp_path / "study")
    assert str(caught.value) == f"{name}: is a kind of file, and no data set; name the file itself"


def test_a_run_folder_alone_lets_no_code_run(make, own_code, mark):
    run = make(model={"name": str(own_code), "trust_remote_code": True})
    with closing(open_run(run)) as store, pytest.raises(ModelError) as caught:
        audit_run(run, store, Asked(), Said())
    assert str(caught.value) == (
        f"{own_code}: the run's study lets code that comes with the model run; "
        "--trust-remote-code lets it run here, too"
    )
    assert not mark.exists()
