"""Finding a model, the cache, and the wording of errors."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import GPT2Config
from transformers.utils import logging as library_logging

from loratlas.anatomy.cache import cache_folder
from loratlas.anatomy.read import read
from loratlas.errors import ModelError

TINY = {"n_embd": 8, "n_layer": 2, "n_head": 2, "vocab_size": 20, "n_positions": 16}
CONFIG = GPT2Config(**TINY, architectures=["GPT2LMHeadModel"]).to_dict()

# Reads a folder and prints the digest, and which heavy packages were imported for it.
PROBE = """
import sys
from loratlas.anatomy.read import read
print(read(sys.argv[1]).digest)
print([name for name in ("torch", "transformers") if name in sys.modules])
"""


@pytest.fixture
def folder(write_config) -> Path:
    return write_config(CONFIG)


def test_folder_file_and_text_are_the_same_model(folder):
    by_folder = read(folder)
    assert read(str(folder)) == by_folder
    assert read(folder / "config.json").digest == by_folder.digest
    assert by_folder.model == str(folder)
    assert by_folder.model_type == "gpt2"


def test_bundled_model():
    anatomy = read("demo:gpt2")
    assert anatomy.model == "demo:gpt2"
    assert {str(s.role) for s in anatomy.sites if s.in_block} == {
        "attention.qkv",
        "attention.o",
        "feed_forward.up",
        "feed_forward.down",
    }


def test_class_is_looked_up_where_the_configuration_names_none(folder, write_config):
    named = read(folder)
    without = read(write_config({k: v for k, v in CONFIG.items() if k != "architectures"}))
    assert without.architecture == named.architecture == "GPT2LMHeadModel"


def test_reading_leaves_the_verbosity_of_transformers_alone(folder):
    before = library_logging.get_verbosity()
    read(folder, cache=False)
    assert library_logging.get_verbosity() == before


# Cache ----------------------------------------------------------------------------------


def test_cache_hit_imports_neither_torch_nor_transformers(folder):
    digest = read(folder).digest
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(folder)],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    assert done.stdout.split("\n")[:2] == [digest, "[]"]


def test_cached_anatomy_equals_a_fresh_one_and_carries_the_name_asked_for(folder, tmp_path):
    fresh = read(folder)
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps(CONFIG))
    cached = read(other)
    assert len(list(cache_folder().iterdir())) == 1
    assert cached.model == str(other)
    assert (cached.digest, cached.sites) == (fresh.digest, fresh.sites)


def test_another_configuration_is_another_entry(folder, write_config):
    two = read(folder)
    three = read(write_config({**CONFIG, "n_layer": 3}))
    assert (two.num_layers, three.num_layers) == (2, 3)
    assert len(list(cache_folder().iterdir())) == 2


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"anatomy": {"model": 3}}', '{"anatomy": [1], "digest": "x"}']
)
def test_corrupt_entry_is_read_anew_and_replaced(folder, text):
    fresh = read(folder)
    (entry,) = cache_folder().iterdir()
    whole = entry.read_text()
    entry.write_text(text)
    assert read(folder) == fresh
    assert entry.read_text() == whole


def test_entry_that_does_not_fit_its_digest_is_read_anew(folder):
    fresh = read(folder)
    (entry,) = cache_folder().iterdir()
    entry.write_text(entry.read_text().replace("attention.qkv", "attention.q"))
    assert read(folder) == fresh


def test_cache_that_cannot_be_written_is_no_error(folder, tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("a file where a folder should be")
    monkeypatch.setenv("LORATLAS_CACHE", str(blocked))
    assert read(folder).num_layers == 2


def test_no_cache_writes_nothing(folder):
    read(folder, cache=False)
    assert not cache_folder().exists()


# Errors ---------------------------------------------------------------------------------


def message(model: str | Path, **options: object) -> str:
    with pytest.raises(ModelError) as caught:
        read(model, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_path_not_found_names_the_nearest(folder):
    wanted = folder / "confg.json"
    assert message(wanted) == (f"{wanted}: no such file or folder (did you mean config.json?)")


def test_folder_without_configuration(tmp_path):
    assert message(tmp_path) == f"{tmp_path}: this folder has no config.json"


def test_broken_json(tmp_path):
    file = tmp_path / "config.json"
    file.write_text('{"model_type": "gpt2",}')
    assert message(tmp_path).startswith(f"{file}: not valid JSON (line 1, column ")


def test_json_that_is_no_object(tmp_path):
    (tmp_path / "config.json").write_text("[1]")
    assert message(tmp_path) == f"{tmp_path / 'config.json'}: holds a list, not a configuration"


def test_missing_model_type(write_config):
    folder = write_config({"n_layer": 2})
    assert message(folder) == (
        f"{folder}: its configuration has no model_type, such as gpt2 or llama"
    )


def test_unknown_model_type_names_the_nearest(write_config):
    text = message(write_config({"model_type": "qwen33"}))
    assert "knows no model_type qwen33 (did you mean qwen3?)" in text


def test_model_type_without_a_language_model(write_config):
    text = message(write_config({"model_type": "vit"}))
    assert text.endswith("has no language model of type vit")


def test_class_that_does_not_build(write_config):
    text = message(write_config({**CONFIG, "n_head": 3}))
    assert ": no gpt2 can be built from it: " in text


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"n_layer": 10**9}, "n_layer is 1,000,000,000; at most 10,000 are read"),
        ({"text_config": {"num_experts": 10**7}}, "num_experts is 10,000,000; at most 100,000 are"),
        ({"n_embd": "wide"}, "no gpt2 can be built from it: Validation error for field 'n_embd'"),
        ({"n_embd": None}, "no gpt2 can be built from it: Validation error for field 'n_embd'"),
    ],
)
def test_configurations_that_no_model_can_have(write_config, changes, told):
    assert told in message(write_config({**CONFIG, **changes}))


@pytest.mark.parametrize("architectures", [["NoSuchClass"], [None], "GPT2LMHeadModel", []])
def test_architectures_that_say_nothing_leave_the_class_to_the_type(write_config, architectures):
    found = read(write_config({**CONFIG, "architectures": architectures}), cache=False)
    assert found.architecture == "GPT2LMHeadModel"


def test_code_of_its_own_needs_permission(write_config):
    auto_map = {"AutoConfig": "configuration_own.OwnConfig"}
    text = message(write_config({"model_type": "own", "auto_map": auto_map}))
    assert text.endswith(
        "its model_type own needs code that comes with the model;"
        " trust_remote_code allows it to run"
    )


def test_bundled_name_that_does_not_exist():
    assert message("demo:gpt3") == (
        "demo:gpt3: no such bundled model (did you mean demo:gpt2?); there is: demo:gpt2"
    )


def test_revision_of_a_folder(folder):
    assert message(folder, revision="main").endswith(
        "a revision (main) can only be given for a name on the hub"
    )


def test_name_that_the_hub_cannot_have():
    assert message("not a name!/x") == "not a name!/x: no folder here, and no valid name on the hub"


def test_hub_that_cannot_be_reached(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert message("nobody/nothing") == (
        "nobody/nothing: no folder of this name is here, and the hub cannot be reached"
    )
