import json
import warnings

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open

from loratlas.errors import VerificationError
from loratlas.placement.placement import place
from loratlas.train.adapters import (
    new_adapters,
    require_equal_logits,
    save_adapters,
    saved_adapters,
)
from loratlas.train.randomness import initial_a
from loratlas.train.verify import wrapped_layers

TOKENS = torch.arange(1, 17).reshape(2, 8)


def start_of(base, placement, path, *, seed=0):
    with new_adapters(base, placement, seed=seed, dropout=0.0) as model:
        return wrapped_layers(model)[path].lora_A["default"].weight.detach().clone()


def test_placements_that_share_a_site_start_from_the_same_a_there(base, anatomy):
    path = "transformer.h.1.attn.c_attn"
    alone = start_of(base, place(anatomy, "attention.qkv @ layers(1)", rank=4), path)
    among_all = start_of(base, place(anatomy, "all", rank=4), path)
    assert torch.equal(alone, among_all)
    assert torch.equal(alone, torch.from_numpy(initial_a(0, path, 4, 32)))
    assert torch.equal(alone[:2], start_of(base, place(anatomy, "all", rank=2), path))
    assert not torch.equal(alone, start_of(base, place(anatomy, "all", rank=4), path, seed=1))


def test_fresh_adapters_change_nothing_and_leave_no_trace(base, anatomy):
    names = [name for name, _ in base.model.named_modules()]
    expected = base.model(TOKENS).logits
    with new_adapters(base, place(anatomy, "all | embedding | head"), seed=0, dropout=0.0) as model:
        assert torch.equal(model(TOKENS).logits, expected)
    assert [name for name, _ in base.model.named_modules()] == names
    assert torch.equal(base.model(TOKENS).logits, expected)


def test_adapters_come_out_even_when_the_trial_fails(base, anatomy):
    def fail():
        with new_adapters(base, place(anatomy, "all"), seed=0, dropout=0.0):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not any("lora" in name for name, _ in base.model.named_modules())


@pytest.mark.parametrize(
    "rule", ["all", "attention:4 + feed_forward:2", "all @ last(1)", "embedding | head"]
)
@pytest.mark.parametrize("scaling", ["constant", "rslora"])
def test_saved_adapters_compute_what_the_trained_ones_did(base, anatomy, tmp_path, rule, scaling):
    placement = place(anatomy, rule, rank=3, alpha=6, scaling=scaling)
    with new_adapters(base, placement, seed=0, dropout=0.0) as model:
        for name, parameter in model.named_parameters():
            if "lora" in name:
                torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
        expected = model.eval()(TOKENS).logits.detach()
        save_adapters(model, placement, tmp_path / "a", base_name="tiny", revision="r1")
    with saved_adapters(base, tmp_path / "a", placement) as model:
        assert torch.equal(model(TOKENS).logits, expected)
    # A person who knows only PEFT reads the same.
    with warnings.catch_warnings(action="ignore"):
        model = PeftModel.from_pretrained(base.model, str(tmp_path / "a")).eval()
    assert torch.equal(model(TOKENS).logits, expected)
    model.unload()
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(a.site.path for a in placement.adapters)
    assert (config["base_model_name_or_path"], config["revision"]) == ("tiny", "r1")


def test_only_adapters_are_saved(base, anatomy, tmp_path):
    placement = place(anatomy, "all | embedding | head", rank=2)
    with new_adapters(base, placement, seed=0, dropout=0.0) as model:
        save_adapters(model, placement, tmp_path / "a", base_name="tiny", revision=None)
    with safe_open(tmp_path / "a" / "adapter_model.safetensors", "pt") as file:
        sizes = [file.get_tensor(name).numel() for name in file.keys()]  # noqa: SIM118
    assert sum(sizes) == placement.trainable_parameters


def test_another_placements_adapters_are_refused(base, anatomy, tmp_path):
    placement = place(anatomy, "attention", rank=2)
    with new_adapters(base, placement, seed=0, dropout=0.0) as model:
        save_adapters(model, placement, tmp_path / "a", base_name="tiny", revision=None)
    other = place(anatomy, "all", rank=2)
    with (
        pytest.raises(VerificationError, match=r"transformer.h.0.mlp.c_fc is not adapted"),
        saved_adapters(base, tmp_path / "a", other),
    ):
        pass
    assert not any("lora" in name for name, _ in base.model.named_modules())


def test_unequal_logits_are_refused():
    logits = torch.ones(2, 3)
    require_equal_logits(logits, logits.clone())
    with pytest.raises(VerificationError, match=r"logits differ by 0\.25"):
        require_equal_logits(logits, logits + 0.25)
    with pytest.raises(VerificationError, match="logits differ by nan"):
        require_equal_logits(logits, logits * torch.nan)
