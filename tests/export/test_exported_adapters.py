"""What is written computes what was trained, by PEFT's own reading of it."""

import json
import shutil
import warnings
from contextlib import closing
from dataclasses import replace

import pytest
import torch

from loratlas.errors import ExportError, RunFolderError, VerificationError
from loratlas.export import adapters
from loratlas.export.write import export
from loratlas.study.folder import FILE_NAME, open_run
from loratlas.study.store import Store
from made_runs import TRAINING, make_run, model_folder

# A rule with several ranks for each family, and how its scales follow from them.
CASES = {
    "demo:gpt2": ("attention:2 + feed_forward.up:6 + feed_forward.down @ last(2)", "constant"),
    "llama": ("attention.q:1 + attention.v:5 + feed_forward.down:3 + embedding:2", "rslora"),
    "qwen3_moe": ("attention.q:2 + expert:4", "alpha/r"),
    "t5": ("attention @ encoder:3 + cross_attention", "constant"),
}
TASKS = {"t5": "seq2seq"}


def exported(run, target, **options):
    with closing(open_run(run)) as store:
        return export(run, store, "placed", target, **options)


@pytest.fixture(scope="module", params=CASES)
def run_of_a_family(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("family")
    rule, scaling = CASES[request.param]
    model = model_folder(request.param, folder)
    task = TASKS.get(request.param, "causal")
    return make_run(folder / "run", model, rule, scaling=scaling, task=task), model, task


def logits_by_peft(model, task, adapter):
    """Return the logits that transformers and PEFT give by themselves."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    from loratlas.bundled import DEMO_MODELS

    classes = {
        "causal": AutoModelForCausalLM,
        "seq2seq": AutoModelForSeq2SeqLM,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = classes[task].from_pretrained(DEMO_MODELS.get(model, model), dtype=torch.float32)
        whole = base if adapter is None else PeftModel.from_pretrained(base, str(adapter))
    rows = torch.randint(5, 300, (3, 11), generator=torch.Generator().manual_seed(7))
    inputs = {"input_ids": rows} | ({"decoder_input_ids": rows} if task == "seq2seq" else {})
    with torch.no_grad():
        return whole.eval()(**inputs).logits


def test_the_uniform_adapter_gives_the_logits_of_the_trained_one(run_of_a_family, tmp_path):
    run, model, task = run_of_a_family
    found = exported(run, "uniform", out=tmp_path / "uniform")
    config = json.loads((tmp_path / "uniform/adapter_config.json").read_text())
    highest = max(a["rank"] for a in stored(run).placements()[0].adapters)
    assert config["r"] == config["lora_alpha"] == highest
    assert not any(config[key] for key in ("rank_pattern", "alpha_pattern", "use_rslora"))

    trained = logits_by_peft(model, task, run / "adapters/seed0")
    uniform = logits_by_peft(model, task, tmp_path / "uniform")
    bare = logits_by_peft(model, task, None)
    # fp32 rounds once more where a scale is folded into B: 3e-6 of the largest logit.
    allowed = 3e-6 * max(1.0, float(trained.abs().max()))
    assert float((trained - uniform).abs().max()) <= allowed
    assert float((trained - bare).abs().max()) > 1000 * allowed
    assert found["logits_differ_by"] <= allowed


def stored(run):
    return Store(run / FILE_NAME)


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_folder):
    folder = tmp_path_factory.mktemp("made") / "run"
    return make_run(folder, str(tiny_folder), "attention:2 + feed_forward.up:4")


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


def test_a_wrong_scale_is_found_and_nothing_is_left(run, tmp_path, monkeypatch):
    right = adapters.folded

    def wrong(factors, *, scale, old_rank, rank):
        return right(factors, scale=scale * 1.001, old_rank=old_rank, rank=rank)

    monkeypatch.setattr(adapters, "folded", wrong)
    with pytest.raises(VerificationError, match="the uniform adapter does not compute what"):
        exported(run, "uniform", out=tmp_path / "deep" / "uniform")
    assert list((tmp_path / "deep").iterdir()) == []


def test_sites_of_a_rule_are_filled_with_zeros(run, tmp_path):
    from safetensors.torch import load_file

    found = exported(run, "uniform", out=tmp_path / "out", fill="feed_forward")
    tensors = load_file(tmp_path / "out/adapter_model.safetensors")
    filled = {name: each for name, each in tensors.items() if "mlp.c_proj" in name}
    assert len(filled) == 2 * 3
    assert not any(each.any() for each in filled.values())
    assert all(each.any() for name, each in tensors.items() if name not in filled)
    assert "3 further sites have an adapter of zeros" in (tmp_path / "out/README.md").read_text()
    # What was trained is said, not what was padded.
    assert found["trainable_parameters"] == stored(run).placements()[0].trainable_parameters


def test_fused_fills_the_other_parts_of_joined_maps(tmp_path):
    from safetensors import safe_open

    model = model_folder("llama", tmp_path)
    rule = "attention.q @ first(1) + feed_forward.up @ last(1)"
    run = make_run(tmp_path / "run", model, rule)
    exported(run, "uniform", out=tmp_path / "out", fill="fused")
    with safe_open(tmp_path / "out/adapter_model.safetensors", framework="np") as tensors:
        sites = {name.split(".lora_")[0].split("layers.")[1] for name in tensors.keys()}  # noqa: SIM118
    assert sites == {f"0.self_attn.{part}_proj" for part in "qkv"} | {
        "2.mlp.gate_proj",
        "2.mlp.up_proj",
    }


def test_a_fill_that_cannot_be_read_is_refused(run, tmp_path):
    with pytest.raises(ExportError, match="--fill takes fused or a rule: "):
        exported(run, "uniform", out=tmp_path / "out", fill="atention")
    with pytest.raises(ExportError, match="--fill: peft takes the sites as they are; use --to un"):
        exported(run, "peft", out=tmp_path / "out", fill="attention")


def test_the_trained_head_of_a_classifier_goes_with_its_adapter(tmp_path, tiny_folder):
    from safetensors.torch import load_file

    run = make_run(
        tmp_path / "run", str(tiny_folder), "attention:2 + feed_forward.up:4",
        task="classification", classes=("no", "yes", "may be"),
    )  # fmt: skip
    exported(run, "uniform", out=tmp_path / "out")
    before = load_file(run / "adapters/seed0/adapter_model.safetensors")
    after = load_file(tmp_path / "out/adapter_model.safetensors")
    heads = [name for name in before if "score" in name]
    assert heads
    assert all(torch.equal(before[name], after[name]) for name in heads)


def test_peft_gets_the_saved_files_as_they_are(run, tmp_path):
    found = exported(run, "peft", out=tmp_path / "out")
    assert found["files"] == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    for name in found["files"][1:]:
        held = (run / "adapters/seed0" / name).read_bytes()
        assert (tmp_path / "out" / name).read_bytes() == held


def test_a_saved_adapter_that_says_something_else_is_not_exported(run, tmp_path):
    file = run / "adapters/seed0/adapter_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"lora_alpha": 1, "alpha_pattern": {}}))
    with pytest.raises(VerificationError, match="it does not say what was trained"):
        exported(run, "peft", out=tmp_path / "out")
    (file.parent / "adapter_model.safetensors").unlink()
    with pytest.raises(ExportError, match=r"its adapter has no adapter_model\.safetensors"):
        exported(run, "peft", out=tmp_path / "out")
    file.unlink()
    with pytest.raises(ExportError, match="its adapter is not in the run folder"):
        exported(run, "peft", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("family", ["demo:gpt2", "t5"])
def test_the_merged_model_gives_the_logits_of_base_and_adapter(family, tmp_path):
    model, task = model_folder(family, tmp_path), TASKS.get(family, "causal")
    run = make_run(tmp_path / "run", model, CASES[family][0], task=task)
    exported(run, "merged", out=tmp_path / "merged")
    trained = logits_by_peft(model, task, run / "adapters/seed0")
    merged = logits_by_peft(str(tmp_path / "merged"), task, None)
    assert float((trained - merged).abs().max()) <= 3e-6 * max(1.0, float(trained.abs().max()))
    names = {file.name for file in (tmp_path / "merged").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= names
    assert not any("adapter" in name for name in names)


def test_the_merged_model_keeps_the_configuration_of_its_base(run, tiny_folder, tmp_path):
    exported(run, "merged", out=tmp_path / "merged")
    before = json.loads((tiny_folder / "config.json").read_text())
    after = json.loads((tmp_path / "merged/config.json").read_text())
    assert before["resid_pdrop"] == 0.1  # switched off while it was trained
    assert {key for key in before if before[key] != after.get(key)} <= {"transformers_version"}


@pytest.mark.parametrize("target", ["uniform", "merged"])
def test_a_base_in_bf16_is_exported_in_bf16(target, tmp_path, tiny_folder):
    run = make_run(
        tmp_path / "run", str(tiny_folder), "attention:2 + feed_forward.up:3", alpha=3,
        training=replace(TRAINING, dtype="bf16"),
    )  # fmt: skip
    found = exported(run, target, out=tmp_path / "out")
    # 8 bits in every sum, layer after layer; the logits of this model are about 1.
    assert 0 <= found["logits_differ_by"] < 5e-2
    if target == "merged":
        assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "bfloat16"


def test_a_tied_head_is_not_merged(tmp_path, tiny_folder):
    run = make_run(tmp_path / "run", str(tiny_folder), "attention + head")
    with pytest.raises(ExportError) as caught:
        exported(run, "merged", out=tmp_path / "out")
    assert str(caught.value) == (
        "placed, seed 0: merged cannot express an adapter on lm_head alone, whose weight "
        "embedding and head share; use --to peft"
    )


def test_another_base_than_the_runs_is_refused(run, tmp_path):
    with closing(Store(run / FILE_NAME, writable=True)) as store:
        store.set_meta("identity", {"base": "0" * 64})
    with pytest.raises(RunFolderError, match="are no longer those that the run was made with"):
        exported(run, "uniform", out=tmp_path / "out")


def test_a_run_that_was_imported_has_nothing_to_export(run, tmp_path):
    with closing(Store(run / FILE_NAME, writable=True)) as store:
        store.set_meta("anatomy", None)
    with pytest.raises(ExportError, match="the run does not say which model was trained"):
        exported(run, "peft", out=tmp_path / "out")
