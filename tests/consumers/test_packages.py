"""Axolotl and LLaMA-Factory read what is exported for them, by the code of their own packages.

``make consumers`` fetches and unpacks the two packages, without what they depend on (bitsandbytes,
a GPU), and names the folder in LORATLAS_CONSUMERS.
"""

import ast
import importlib
import importlib.util
import os
import sys
import warnings
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from loratlas.export.subject import subject_of
from loratlas.export.write import export
from loratlas.study.folder import open_run
from loratlas.train.verify import verify
from made_runs import make_run, model_folder, save_empty_adapter

PACKAGES = os.environ.get("LORATLAS_CONSUMERS")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PACKAGES is None, reason="run by `make consumers`, which fetches packages"),
]


@pytest.fixture
def made(tmp_path):
    """Exports a placement of a family; returns the file, the placement, and PEFT's check."""

    def call(family, rule, target, **options):
        model = model_folder(family, tmp_path)
        run = make_run(tmp_path / "run", model, rule, weights=False, **options)
        save_empty_adapter(run)
        with closing(open_run(run)) as store:
            export(run, store, "placed", target, out=tmp_path / "out")
            placement = subject_of(run, store, "placed").placement
        call.base, call.placement = model, placement
        return yaml.safe_load((tmp_path / f"out/{target}.yaml").read_text())

    return call


def require_placement(made, config):
    """Raise unless PEFT wraps the placement with a consumer's configuration."""
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(made.base), config)
    verify(model, made.placement)


@pytest.fixture
def axolotl(monkeypatch):
    monkeypatch.syspath_prepend(f"{PACKAGES}/axolotl")
    return Path(str(PACKAGES)) / "axolotl" / "axolotl"


class Asked(dict):
    """A configuration as Axolotl passes it about: a key that is missing is None."""

    __getattr__ = dict.get


def lora_config_of(axolotl, asked: Asked) -> Any:
    """Run the functions of Axolotl's loader that make a `LoraConfig`; the file needs a GPU."""
    import peft

    names = {"_build_lora_config_kwargs", "_build_peft_lora_config", "_get_peft_task_type"}
    tree = ast.parse((axolotl / "loaders/adapter.py").read_text())
    tree.body = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name in names]
    assert {node.name for node in tree.body} == names
    no_plugins = SimpleNamespace(get_lora_config_kwargs=lambda _cfg: {})
    scope = {
        "Any": Any, "DictDefault": Asked, "LoraConfig": peft.LoraConfig,
        "LoftQConfig": peft.LoftQConfig, "TaskType": peft.TaskType, "PeftConfig": peft.PeftConfig,
        "PreTrainedModel": object, "LOG": None,
        "PLUGIN_MANAGER": no_plugins,
    }  # fmt: skip
    exec(compile(tree, "adapter.py", "exec"), scope)
    return scope["_build_peft_lora_config"](SimpleNamespace(config=None), asked)


@pytest.mark.parametrize(
    ("family", "rule", "scaling"),
    [
        ("gpt2", "attention:2 + feed_forward.up:6", "constant"),
        ("llama", "attention.q:1 + attention.v:5 + feed_forward.down:3", "rslora"),
        ("qwen3_moe", "attention.q:2 + expert:4", "constant"),
    ],
)
def test_axolotl(family, rule, scaling, made, axolotl):
    fields = made(family, rule, "axolotl", scaling=scaling)
    schema = importlib.import_module("axolotl.utils.schemas.peft").LoraConfig
    assert {key for key in fields if key.startswith(("lora_", "peft_"))} <= set(schema.model_fields)
    known = schema.model_validate(
        {key: value for key, value in fields.items() if key in schema.model_fields}
    )
    asked = Asked(known.model_dump(exclude_none=True))
    require_placement(made, lora_config_of(axolotl, asked))


def test_axolotl_has_every_key(made, axolotl):
    options = importlib.import_module("axolotl.cli.config_options").AXOLOTL_CONFIG_CLI_OPTIONS
    names = {flag for flags, *_ in options for each in flags for flag in each.split("/")}
    fields = made("llama", "attention:2 + feed_forward:3", "axolotl")
    assert [key for key in fields if f"--{key.replace('_', '-')}" not in names] == []


def test_llama_factory(made):
    from peft import LoraConfig

    fields = made("llama", "attention.q @ last(2) | feed_forward.down", "llama-factory", rank=6)
    folder = Path(str(PACKAGES)) / "llamafactory" / "llamafactory" / "hparams"
    spec = importlib.util.spec_from_file_location("finetuning_args", folder / "finetuning_args.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    known = module.FinetuningArguments.__dataclass_fields__
    arguments = module.FinetuningArguments(**{k: v for k, v in fields.items() if k in known})
    # As model/adapter.py passes them on.
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=arguments.lora_rank,
        target_modules=arguments.lora_target,
        lora_alpha=arguments.lora_alpha,
        lora_dropout=arguments.lora_dropout,
        use_rslora=arguments.use_rslora,
        use_dora=arguments.use_dora,
        modules_to_save=arguments.additional_target,
    )
    require_placement(made, config)
    others = "".join(path.read_text() for path in folder.glob("*.py"))
    training = importlib.import_module("transformers").TrainingArguments.__dataclass_fields__
    # Its arguments of training are those of transformers 4, which knew this one.
    allowed = {*known, *training, "warmup_ratio"}
    assert [key for key in fields if key not in allowed and f"    {key}:" not in others] == []
