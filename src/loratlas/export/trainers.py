"""Which files let another trainer train the same placement, at the same rate and seed?

Each consumer has one function: files by name. Adapters come from `config_fields`, so that names,
ranks and alphas are exact; what is left to the person, such as the data, is said in the file.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from loratlas.bundled import DEMO_MODELS
from loratlas.errors import ExportError
from loratlas.export.subject import Subject
from loratlas.export.targets import peft_fields
from loratlas.placement.peft_config import adapter_config

Files = Mapping[str, str]
"""Texts by the names of their files."""


def trainer_files(target: str, subject: Subject) -> Files:
    """Return the files of a trainer.

    Raises:
        ExportError: there is no such trainer.
    """
    if target not in _TRAINERS:
        raise ExportError(f"{target}: there is no such trainer; there is {', '.join(_TRAINERS)}")
    return _TRAINERS[target](subject)


def base_location(subject: Subject) -> str:
    """Return where another program finds the base: a name on the hub, or a whole path."""
    name = subject.model.name
    if name in DEMO_MODELS:
        return str(DEMO_MODELS[name])
    return str(Path(name).resolve()) if Path(name).exists() else name


def _axolotl(subject: Subject) -> Files:
    fields, training = peft_fields(subject), subject.training
    asked: dict[str, Any] = {
        "base_model": base_location(subject),
        "revision_of_model": subject.model.revision,
        "adapter": "lora",
        "lora_r": fields["r"],
        "lora_alpha": fields["lora_alpha"],
        "lora_dropout": fields["lora_dropout"],
        "lora_fan_in_fan_out": fields["fan_in_fan_out"] or None,
        "peft_use_rslora": fields["use_rslora"] or None,
        "lora_target_modules": fields["target_modules"] or None,
        "lora_target_parameters": fields["target_parameters"],
        "lora_rank_pattern": fields["rank_pattern"] or None,
        "lora_alpha_pattern": fields["alpha_pattern"] or None,
        "sequence_len": subject.max_length,
        "micro_batch_size": training.batch,
        "num_epochs": None if training.steps else training.epochs,
        "max_steps": training.steps,
        "optimizer": "adamw_torch",
        "learning_rate": subject.trial.learning_rate,
        "lr_scheduler": training.scheduler,
        **_shared(subject),
        "bf16": training.dtype == "bf16",
    }
    left = (
        "Yours to add: datasets, output_dir.",
        f"Then: axolotl train axolotl.yaml. It has to report {_count(subject)} trainable "
        "parameters.",
    )
    return {"axolotl.yaml": _yaml(asked, _headed(subject, "Axolotl", left))}


def _llama_factory(subject: Subject) -> Files:
    fields, training = peft_fields(subject), subject.training
    asked: dict[str, Any] = {
        "model_name_or_path": base_location(subject),
        "model_revision": subject.model.revision,
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "lora_rank": fields["r"],
        "lora_alpha": fields["lora_alpha"],
        "lora_dropout": fields["lora_dropout"],
        "use_rslora": fields["use_rslora"] or None,
        "lora_target": ",".join(fields["target_modules"]),
        "cutoff_len": subject.max_length,
        "per_device_train_batch_size": training.batch,
        "num_train_epochs": None if training.steps else training.epochs,
        "max_steps": training.steps,
        "optim": "adamw_torch",
        "learning_rate": subject.trial.learning_rate,
        "lr_scheduler_type": training.scheduler,
        **_shared(subject),
        "bf16": training.dtype == "bf16",
    }
    left = (
        "Yours to add: dataset, template, output_dir.",
        f"Then: llamafactory-cli train llama-factory.yaml. It has to report {_count(subject)} "
        "trainable parameters.",
    )
    return {"llama-factory.yaml": _yaml(asked, _headed(subject, "LLaMA-Factory", left))}


def _trl(subject: Subject) -> Files:
    config = adapter_config(
        subject.placement,
        dropout=subject.dropout,
        base_model=base_location(subject),
        revision=subject.model.revision,
    )
    config |= {"inference_mode": False, "task_type": "CAUSAL_LM"}
    loading = {"revision": subject.model.revision, "dtype": _dtype(subject)}
    return {
        "adapter_config.json": json.dumps(config, indent=2) + "\n",
        "train.py": _TRL.format(
            what=_what(subject),
            base=base_location(subject),
            loading={key: value for key, value in loading.items() if value is not None},
            arguments=_arguments(subject),
            count=subject.placement.trainable_parameters,
        ),
    }


def _unsloth(subject: Subject) -> Files:
    fields = peft_fields(subject)
    kept = ("r", "lora_alpha", "lora_dropout", "bias", "use_rslora", "target_modules")
    asked = {key: fields[key] for key in kept}
    more = ("target_parameters", "rank_pattern", "alpha_pattern")
    asked |= {key: fields[key] for key in more if fields[key]}
    asked["random_state"] = subject.trial.seed
    return {
        "lora.json": json.dumps(asked, indent=2) + "\n",
        "model.py": _UNSLOTH.format(
            what=_what(subject),
            base=base_location(subject),
            length=subject.max_length or 2048,
            dtype=_dtype(subject),
            count=subject.placement.trainable_parameters,
        ),
    }


_TRAINERS: Mapping[str, Callable[[Subject], Files]] = {
    "axolotl": _axolotl,
    "llama-factory": _llama_factory,
    "trl": _trl,
    "unsloth": _unsloth,
}

_TRL = '''\
"""{what}, with TRL: python train.py DATA.jsonl"""

import sys
from pathlib import Path

from datasets import load_dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

HERE = Path(__file__).parent
TRAINABLE = {count}

trainer = SFTTrainer(
    model={base!r},
    args=SFTConfig(
        output_dir="trained",
        model_init_kwargs={loading!r},
{arguments}
    ),
    train_dataset=load_dataset("json", data_files=sys.argv[1], split="train"),
    peft_config=LoraConfig.from_pretrained(HERE),
)
found = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
if found != TRAINABLE:
    sys.exit(f"{{found}} trainable parameters, and the placement has {{TRAINABLE}}")
trainer.train()
'''

_UNSLOTH = '''\
"""{what}, with Unsloth: from model import model, tokenizer"""

import json
import sys
from pathlib import Path

import torch
from unsloth import FastLanguageModel

TRAINABLE = {count}
LORA = json.loads((Path(__file__).parent / "lora.json").read_text())

model, tokenizer = FastLanguageModel.from_pretrained(
    model_name={base!r}, max_seq_length={length}, dtype=torch.{dtype}, load_in_4bit=False
)
model = FastLanguageModel.get_peft_model(model, **LORA)
found = sum(p.numel() for p in model.parameters() if p.requires_grad)
if found != TRAINABLE:
    sys.exit(f"{{found}} trainable parameters, and the placement has {{TRAINABLE}}")
'''


def _shared(subject: Subject) -> dict[str, Any]:
    """Return what Axolotl and LLaMA-Factory call by the same names."""
    training = subject.training
    is_share = training.warmup < 1
    return {
        "gradient_accumulation_steps": training.accumulation,
        "warmup_ratio": training.warmup if is_share else None,
        "warmup_steps": None if is_share else int(training.warmup),
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.clip or 0.0,
        "seed": subject.trial.seed,
    }


def _arguments(subject: Subject) -> str:
    """Return the arguments of TRL's `SFTConfig` as lines of Python."""
    training = subject.training
    asked = {
        "max_length": subject.max_length,
        "per_device_train_batch_size": training.batch,
        "gradient_accumulation_steps": training.accumulation,
        "num_train_epochs": None if training.steps else training.epochs,
        "max_steps": training.steps,
        "optim": "adamw_torch",
        "learning_rate": subject.trial.learning_rate,
        "lr_scheduler_type": training.scheduler,
        "warmup_steps": training.warmup,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.clip or 0.0,
        "seed": subject.trial.seed,
        "bf16": training.dtype == "bf16",
    }
    return "\n".join(
        f"        {key}={value!r}," for key, value in asked.items() if value is not None
    )


def _dtype(subject: Subject) -> str:
    return "bfloat16" if subject.training.dtype == "bf16" else "float32"


def _count(subject: Subject) -> str:
    return f"{subject.placement.trainable_parameters:,}"


def _what(subject: Subject) -> str:
    """Return what a file trains, fit for a comment or a docstring."""
    name = json.dumps(subject.name, ensure_ascii=True)[1:-1].replace('"', "'")
    return f"The placement {name}, seed {subject.trial.seed}"


def _headed(subject: Subject, consumer: str, left: tuple[str, ...]) -> str:
    return "".join(f"# {line}\n" for line in (f"{_what(subject)}, with {consumer}.", *left))


def _yaml(fields: Mapping[str, Any], head: str) -> str:
    """Return YAML that readers of version 1.1 and 1.2 read alike; what is None is left out."""
    lines = []
    for key, value in fields.items():
        if isinstance(value, list):
            lines += [f"{key}:", *(f"  - {_scalar(each)}" for each in value)]
        elif isinstance(value, Mapping):
            lines += [f"{key}:", *(f"  {_scalar(k)}: {_scalar(v)}" for k, v in value.items())]
        elif value is not None:
            lines.append(f"{key}: {_scalar(value)}")
    return head + "".join(f"{line}\n" for line in lines)


def _scalar(value: Any) -> str:
    """Return a scalar; YAML 1.1 takes 1e-05 for text, and 1.0e-05 for a number."""
    text = json.dumps(value)
    if isinstance(value, float) and "e" in text and "." not in text:
        return text.replace("e", ".0e")
    return text
