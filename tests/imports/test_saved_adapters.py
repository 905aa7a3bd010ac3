"""Which placement a saved adapter is, and that its weights are those of its configuration."""

import json
import shutil
from contextlib import closing

import pytest

from loratlas.analysis.summary import results
from loratlas.errors import DataError
from loratlas.imports.base import BaseModel
from loratlas.imports.run import import_run
from loratlas.study.folder import open_run
from made_runs import make_run


@pytest.fixture(scope="module")
def saved(tmp_path_factory, tiny_folder):
    """An adapter on its base: attention at rank 2, feed_forward.up at rank 4."""
    folder = tmp_path_factory.mktemp("saved")
    make_run(folder / "run", str(tiny_folder), "attention:2 + feed_forward.up:4")
    return folder / "run/adapters/seed0"


@pytest.fixture
def adapter(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "mine")


def test_an_adapter_is_a_placement_without_trials(adapter, tmp_path, tiny_folder):
    told = import_run(adapter, tmp_path / "run", BaseModel())
    assert (told["source"], told["num_placements"], told["num_trials"]) == ("peft", 1, 0)
    with closing(open_run(tmp_path / "run")) as store:
        found = results(store)["placements"]["mine"]
        kept = store.placements()[0]
    assert (found["num_sites"], found["ranks"], found["loss"]) == (9, [2, 4], None)
    assert found["families"] == {
        "attention": 3 * 2 * ((32 + 96) + (32 + 32)),
        "feed_forward": 3 * 4 * (32 + 128),
    }
    assert kept.rule.startswith("rank ")


def test_a_folder_of_adapters_is_a_placement_each(adapter, tmp_path):
    shutil.copytree(adapter, tmp_path / "two" / "a")
    shutil.copytree(adapter, tmp_path / "two" / "b")
    import_run(tmp_path / "two", tmp_path / "run", BaseModel())
    with closing(open_run(tmp_path / "run")) as store:
        assert list(results(store)["placements"]) == ["a", "b"]


def change(adapter, **changes):
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def refusal(source, tmp_path, **base):
    with pytest.raises(DataError) as caught:
        import_run(source, tmp_path / "run", BaseModel(**base))
    assert not (tmp_path / "run").exists()
    return str(caught.value)


def test_weights_of_another_configuration_are_refused(adapter, tmp_path):
    change(adapter, r=3)
    said = refusal(adapter, tmp_path)
    assert "adapter_model.safetensors: holds" in said
    assert "weights, configuration and model do not belong together" in said


def test_another_model_is_refused(adapter, tmp_path):
    assert "do not belong together" in refusal(adapter, tmp_path, name="demo:gpt2")
    change(adapter, base_model_name_or_path=None)
    assert refusal(adapter, tmp_path).endswith(
        "the adapter does not state its base model; say it with --model"
    )


def test_what_adapts_nothing_is_refused(adapter, tmp_path):
    change(adapter, target_modules=["nothing"], target_parameters=None)
    assert "it adapts nothing in" in refusal(adapter, tmp_path)


def test_what_cannot_be_read_is_refused(adapter, tmp_path):
    (adapter / "adapter_model.safetensors").write_bytes(b"x" * 100)
    assert "adapter_model.safetensors: cannot be read" in refusal(adapter, tmp_path)
    (adapter / "adapter_config.json").write_text("{")
    assert "cannot be read as JSON" in refusal(adapter, tmp_path)
