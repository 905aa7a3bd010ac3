import shutil

import pytest
import torch
from transformers import BartConfig, GPT2LMHeadModel, T5Config

from loratlas.errors import ModelError
from loratlas.train.base import load_base, pick_device, weights_digest
from loratlas.train.dropout import set_dropout
from loratlas.train.trial import ModelRef

CPU = torch.device("cpu")


def load(folder, **changes):
    arguments = {"dtype": "fp32", "base_dropout": 0.0, "device": CPU, **changes}
    return load_base(ModelRef(name=str(folder)), **arguments)


def test_dropout_is_what_the_study_says(tiny_folder):
    kept = load(tiny_folder, base_dropout=None).model
    assert {m.p for m in kept.modules() if isinstance(m, torch.nn.Dropout)} == {0.1}
    for value in (0.0, 0.25):
        model = load(tiny_folder, base_dropout=value).model
        assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {value}


def test_every_dropout_of_a_configuration_is_set():
    config = T5Config()
    assert "dropout_rate" in set_dropout(config, 0.3)
    assert config.dropout_rate == 0.3


def test_the_digest_changes_with_one_weight_and_the_type(tiny_folder):
    model = GPT2LMHeadModel.from_pretrained(tiny_folder)
    first = weights_digest(model)
    assert weights_digest(GPT2LMHeadModel.from_pretrained(tiny_folder)) == first
    with torch.no_grad():
        model.transformer.h[1].mlp.c_fc.weight[0, 0] += 1e-6
    assert weights_digest(model) != first
    assert load(tiny_folder, dtype="bf16").digest != load(tiny_folder).digest


def test_a_copy_elsewhere_is_the_same_base(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "copy")
    assert load(tmp_path / "copy").digest == load(tiny_folder).digest


def test_a_base_is_frozen_and_counted(tiny_folder):
    base = load(tiny_folder)
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    # Embeddings 400 x 32 and 64 x 32, 3 blocks of 12 d^2 + 13 d, the last norm; the head is tied.
    assert base.num_parameters == 400 * 32 + 64 * 32 + 3 * (12 * 32**2 + 13 * 32) + 2 * 32


def test_pickled_weights_are_refused(tiny_folder, tmp_path):
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_folder, folder)
    (folder / "model.safetensors").unlink()
    torch.save(
        GPT2LMHeadModel.from_pretrained(tiny_folder).state_dict(), folder / "pytorch_model.bin"
    )
    with pytest.raises(ModelError, match="the model cannot be loaded"):
        load(folder)


def test_damaged_weights_are_refused(tiny_folder, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_folder, folder)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ModelError, match="the model cannot be loaded"):
        load(folder)


def test_layers_are_never_dropped_by_a_dropout():
    config = BartConfig(encoder_layerdrop=0.2, decoder_layerdrop=0.2)
    assert "encoder_layerdrop" not in set_dropout(config, 0.1)
    assert (config.dropout, config.encoder_layerdrop) == (0.1, 0.2)
    set_dropout(config, 0.0)
    assert (config.encoder_layerdrop, config.decoder_layerdrop) == (0.0, 0.0)


def test_a_device_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device("auto") == CPU
    with pytest.raises(ModelError, match="device cuda: not available here; there is: cpu"):
        pick_device("cuda")
