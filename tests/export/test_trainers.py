"""What another trainer makes of its file is the placement, by PEFT, or the export is refused.

How each consumer turns its file into a `LoraConfig` is written down here as its source has it:
Axolotl's ``loaders/adapter.py``, LLaMA-Factory's ``model/adapter.py``, Unsloth's
``FastLanguageModel.get_peft_model``. TRL is installed, and runs its own script.
"""

import ast
import json
import runpy
import sys
import warnings
from contextlib import closing
from dataclasses import replace

import pytest
import yaml

from loratlas.errors import ExportError
from loratlas.export.subject import subject_of
from loratlas.export.write import export
from loratlas.study.folder import FILE_NAME, open_run
from loratlas.study.store import Store
from loratlas.train.verify import verify
from made_runs import TRAINING, make_run, model_folder, save_empty_adapter

MIXED = "attention:2 + feed_forward.up:6"


def exported(run, target, out):
    with closing(open_run(run)) as store:
        return export(run, store, "placed", target, out=out)


def placement_of(run):
    with closing(open_run(run)) as store:
        return subject_of(run, store, "placed").placement


def wrapped(model, fields):
    """Return the model that PEFT makes of the arguments that a consumer gives it."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT corrects fan_in_fan_out, and says so
        base = AutoModelForCausalLM.from_pretrained(model)
        return get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **fields))


def by_axolotl(text):
    """Return what Axolotl passes on; its schema wants whole numbers in the patterns."""
    asked = yaml.safe_load(text)
    patterns = {
        key.removeprefix("lora_"): asked[key]
        for key in ("lora_rank_pattern", "lora_alpha_pattern")
        if key in asked
    }
    for value in (asked["lora_r"], asked["lora_alpha"], *(v for p in patterns.values() for v in p.values())):  # noqa: E501  # fmt: skip
        assert type(value) is int
    rslora = {"use_rslora": True} if asked.get("peft_use_rslora") else {}
    return {
        "r": asked["lora_r"],
        "lora_alpha": asked["lora_alpha"],
        "target_modules": asked.get("lora_target_modules") or [],
        "target_parameters": asked.get("lora_target_parameters") or [],
        "lora_dropout": asked["lora_dropout"],
        "fan_in_fan_out": asked.get("lora_fan_in_fan_out"),
        "bias": "none",
        **patterns,
        **rslora,
    }


def by_llama_factory(text):
    asked = yaml.safe_load(text)
    assert type(asked["lora_rank"]) is int
    assert type(asked["lora_alpha"]) is int
    return {
        "r": asked["lora_rank"],
        "lora_alpha": asked["lora_alpha"],
        "target_modules": [item.strip() for item in asked["lora_target"].split(",")],
        "lora_dropout": asked["lora_dropout"],
        "use_rslora": asked.get("use_rslora", False),
    }


def by_unsloth(text):
    asked = json.loads(text)
    del asked["random_state"]
    assert type(asked["r"]) is int
    return asked


@pytest.mark.parametrize(
    ("family", "scaling"), [("gpt2", "rslora"), ("llama", "constant"), ("llama", "alpha/r")]
)
def test_axolotl_and_unsloth_adapt_the_placement(family, scaling, tmp_path):
    model = model_folder(family, tmp_path)
    run = make_run(tmp_path / "run", model, MIXED, scaling=scaling, dropout=0.05, weights=False)
    save_empty_adapter(run)
    exported(run, "axolotl", tmp_path / "axolotl")
    exported(run, "unsloth", tmp_path / "unsloth")
    placement = placement_of(run)
    asked = by_axolotl((tmp_path / "axolotl/axolotl.yaml").read_text())
    verify(wrapped(model, asked), placement)
    verify(wrapped(model, by_unsloth((tmp_path / "unsloth/lora.json").read_text())), placement)
    compile((tmp_path / "unsloth/model.py").read_text(), "model.py", "exec")


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return model_folder("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture
def llama_run(tmp_path, llama):
    """Makes runs of a tiny Llama whose adapters nobody reads."""

    def call(rule, **options):
        run = make_run(tmp_path / f"run{len(rule)}", llama, rule, weights=False, **options)
        save_empty_adapter(run)
        return run

    call.model = llama
    return call


def test_llama_factory_adapts_the_placement(llama_run, tmp_path):
    run = llama_run("attention.q @ last(2) | feed_forward.down", rank=6, alpha=9)
    exported(run, "llama-factory", tmp_path / "out")
    text = (tmp_path / "out/llama-factory.yaml").read_text()
    verify(wrapped(llama_run.model, by_llama_factory(text)), placement_of(run))


def test_experts_reach_axolotl_and_unsloth_as_parameters(tmp_path):
    model = model_folder("qwen3_moe", tmp_path)
    run = make_run(tmp_path / "run", model, "attention.q + expert", rank=2, weights=False)
    save_empty_adapter(run)
    exported(run, "axolotl", tmp_path / "out")
    exported(run, "unsloth", tmp_path / "unsloth")
    axolotl = by_axolotl((tmp_path / "out/axolotl.yaml").read_text())
    unsloth = by_unsloth((tmp_path / "unsloth/lora.json").read_text())
    assert axolotl["target_parameters"] == unsloth["target_parameters"]
    verify(wrapped(model, axolotl), placement_of(run))
    verify(wrapped(model, unsloth), placement_of(run))


def test_the_files_say_how_the_trial_was_trained(llama_run, tmp_path):
    run = llama_run("attention")
    exported(run, "axolotl", tmp_path / "axolotl")
    exported(run, "llama-factory", tmp_path / "factory")
    axolotl = yaml.safe_load((tmp_path / "axolotl/axolotl.yaml").read_text())
    factory = yaml.safe_load((tmp_path / "factory/llama-factory.yaml").read_text())
    shared = {
        "learning_rate": 3e-3, "gradient_accumulation_steps": 1, "warmup_ratio": 0.1,
        "weight_decay": 0.01, "max_grad_norm": 1.0, "seed": 0, "max_steps": 3, "bf16": False,
    }  # fmt: skip
    assert shared.items() <= axolotl.items()
    assert shared.items() <= factory.items()
    assert (axolotl["base_model"], axolotl["sequence_len"]) == (llama_run.model, 48)
    assert (factory["model_name_or_path"], factory["cutoff_len"]) == (llama_run.model, 48)
    assert axolotl["micro_batch_size"] == factory["per_device_train_batch_size"] == 4
    assert "num_epochs" not in axolotl


def test_a_name_of_a_placement_stays_text(llama_run, tmp_path):
    name = 'a"""\nimport os\\ # \u2028{count}'
    run = llama_run("attention", name=name)
    with closing(open_run(run)) as store:
        for target in ("trl", "unsloth", "axolotl"):
            export(run, store, name, target, out=tmp_path / target)
    for file in ("trl/train.py", "unsloth/model.py"):
        body = ast.parse((tmp_path / file).read_text()).body
        imported = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert imported
        assert "os" not in {alias.name for node in imported for alias in node.names}
    assert yaml.safe_load((tmp_path / "axolotl/axolotl.yaml").read_text())["adapter"] == "lora"


def test_a_small_rate_is_a_number_for_readers_of_yaml_1_1():
    from loratlas.export.trainers import _scalar

    assert [yaml.safe_load(_scalar(value)) for value in (1e-5, 2.5e-5, 1e-4, 1e22)] == [
        1e-5, 2.5e-5, 1e-4, 1e22,
    ]  # fmt: skip


def test_epochs_and_a_warm_up_in_steps(llama_run, tmp_path):
    run = llama_run("attention", training=replace(TRAINING, steps=None, epochs=2.0, warmup=5))
    exported(run, "axolotl", tmp_path / "out")
    found = yaml.safe_load((tmp_path / "out/axolotl.yaml").read_text())
    assert (found["num_epochs"], found["warmup_steps"]) == (2.0, 5)
    assert not {"max_steps", "warmup_ratio"} & found.keys()


# TRL, accelerate and transformers warn about each other; a person's script goes on.
@pytest.mark.filterwarnings("ignore")
def test_trl_trains_the_placement(tmp_path, tiny_folder, monkeypatch):
    run = make_run(tmp_path / "run", str(tiny_folder), MIXED, weights=False)
    save_empty_adapter(run)
    exported(run, "trl", tmp_path / "out")
    rows = [{"prompt": f"Where is {n}?", "completion": f" In {n}."} for n in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", str(tmp_path / "rows.jsonl")])
    trained = runpy.run_path(str(tmp_path / "out/train.py"))["trainer"]
    verify(trained.model, placement_of(run))
    assert trained.state.global_step == 3
    assert trained.args.learning_rate == 3e-3


def refusal(run, target, out):
    with pytest.raises(ExportError) as caught:
        exported(run, target, out)
    assert not out.exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("target", "rule", "options", "said"),
    [
        (
            "llama-factory", "attention.q:2 + attention.v:6 + feed_forward.up:3", {},
            "llama-factory cannot express ranks that differ by site (2, 3, 6): it takes one for "
            "all; use --to trl, axolotl or unsloth",
        ),
        (
            "llama-factory", "attention", {"rank": 4, "alpha": 2.5},
            "llama-factory cannot express an alpha that is no integer (2.5); use --to trl or "
            "unsloth",
        ),
        (
            "axolotl", "attention:2 + feed_forward:3", {"rank": 4, "alpha": 2},
            "axolotl cannot express an alpha that is no integer (1.5); use --to trl, unsloth or "
            "uniform",
        ),
        (
            "unsloth", "attention + head", {},
            "unsloth cannot express an adapter on lm_head, which it trains whole instead; use "
            "--to trl or axolotl",
        ),
        (
            "vllm", "attention", {"rank": 600},
            "vllm cannot express rank 600: its highest is 512; use --to merged",
        ),
    ],
    ids=["ranks", "alpha", "alphas", "head", "highest-rank"],
)  # fmt: skip
def test_what_a_target_cannot_express(target, rule, options, said, llama_run, tmp_path):
    run = llama_run(rule, **options)
    assert refusal(run, target, tmp_path / "out") == f"placed, seed 0: {said}"


def test_parameters_reach_lists_of_modules_nowhere(tmp_path):
    model = model_folder("qwen3_moe", tmp_path)
    run = make_run(tmp_path / "run", model, "expert", rank=2, weights=False)
    save_empty_adapter(run)
    for target in ("llama-factory", "vllm"):
        said = refusal(run, target, tmp_path / "out")
        assert f"{target} cannot express adapters of parameters, such as model.layers.0" in said


def test_targets_that_need_a_regular_expression(llama_run, tmp_path, monkeypatch):
    from loratlas.export import targets

    monkeypatch.setattr(
        targets,
        "peft_fields",
        lambda _subject: {"target_modules": "a|b", "alpha_pattern": {}, "lora_alpha": 8},
    )
    assert refusal(llama_run("attention"), "llama-factory", tmp_path / "out").endswith(
        "cannot express targets that take a regular expression, because a path that is placed is "
        "the end of one that is not; use --to trl, axolotl or unsloth"
    )


def test_only_causal_models_are_trained_or_served_so(llama_run, tmp_path):
    run = llama_run("attention")
    kinds = {
        "masked": "a masked language model",
        "seq2seq": "a sequence-to-sequence model",
        "classification": "a classifier",
    }
    for task, said in kinds.items():
        with closing(Store(run / FILE_NAME, writable=True)) as store:
            store.set_meta("task", task)
        for target in ("trl", "axolotl", "llama-factory", "unsloth", "vllm"):
            assert refusal(run, target, tmp_path / "out") == (
                f"placed, seed 0: {target} cannot express {said}; use --to peft, uniform or merged"
            )
