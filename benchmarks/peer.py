"""The peer: one LoRA fine-tune with PEFT and Trainer, as its users would write it.

Run: ``python benchmarks/peer.py CONFIG.json RESULT.json``. One trial in one process: load the
model and its tokenizer, tokenise the rows, train, score the rows that are kept for it, save the
adapter. Nothing of loratlas is imported. `side_by_side` writes CONFIG and reads RESULT.

The settings are the fastest that Trainer has in stock: batches padded to their longest row, rows
of like length together, no logs, no checkpoints, no check of each step's loss for NaN.
"""

import json
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
)

IGNORED = -100
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def load_model(folder: str, dtype: str) -> Any:
    """Return the base without dropout, in the precision that is asked for."""
    config = AutoConfig.from_pretrained(folder)
    for key in vars(config):
        if key.endswith(("_pdrop", "_dropout")):
            setattr(config, key, 0.0)
    config.use_cache = False
    return AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=DTYPES[dtype])


def tokenise(file: str, tokenizer: Any, max_length: int) -> list[dict[str, list[int]]]:
    """Return rows of ids and labels; only answers have labels, and a row needs one."""
    with open(file, encoding="utf-8") as stream:  # noqa: PTH123
        rows = [json.loads(line) for line in stream]
    prompts = tokenizer([row["prompt"] for row in rows])["input_ids"]
    answers = tokenizer([row["completion"] for row in rows], add_special_tokens=False)["input_ids"]
    found = []
    for prompt, answer in zip(prompts, answers, strict=True):
        whole = [*answer, tokenizer.eos_token_id]
        ids = [*prompt, *whole][:max_length]
        labels = [*[IGNORED] * len(prompt), *whole][:max_length]
        if num_scored(labels):
            found.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels})
    return found


def num_scored(labels: Sequence[int]) -> int:
    """Return the predictions that count; nothing predicts the first token."""
    return sum(label != IGNORED for label in labels[1:])


def lora_config(sites: Sequence[Mapping[str, Any]], model: Any) -> LoraConfig:
    """Return the configuration that adapts the given sites and no others."""
    rank, alpha = sites[0]["rank"], sites[0]["alpha"]
    exact = {rf"^{re.escape(site['path'])}": site for site in sites}
    return LoraConfig(
        task_type="CAUSAL_LM",
        target_modules=[site["path"] for site in sites],
        r=rank,
        rank_pattern={key: s["rank"] for key, s in exact.items() if s["rank"] != rank},
        lora_alpha=alpha,
        alpha_pattern={key: s["alpha"] for key, s in exact.items() if s["alpha"] != alpha},
        lora_dropout=0.0,
        fan_in_fan_out=model.config.model_type == "gpt2",  # its maps are Conv1D
    )


def arguments(config: Mapping[str, Any], folder: str) -> TrainingArguments:
    """Return Trainer's settings."""
    return TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=config["micro_batch"],
        gradient_accumulation_steps=config["accumulation"],
        per_device_eval_batch_size=config["eval_batch"],
        num_train_epochs=config["epochs"],
        learning_rate=config["learning_rate"],
        lr_scheduler_type=config["scheduler"],
        warmup_steps=config["warmup"],
        weight_decay=config["weight_decay"],
        max_grad_norm=config["clip"],
        seed=config["seed"],
        train_sampling_strategy="group_by_length",
        bf16=config["autocast"],
        torch_compile=config["compile"],
        use_cpu=config["device"] == "cpu",
        dataloader_pin_memory=config["device"] == "cuda",
        eval_strategy="no",
        save_strategy="no",
        logging_strategy="no",
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
    )


def run(config: Mapping[str, Any]) -> dict[str, Any]:
    """Train one trial, score its rows, save its adapter; return what came out."""
    torch.manual_seed(config["seed"])
    tokenizer = AutoTokenizer.from_pretrained(config["model"])
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    rows = {
        split: tokenise(file, tokenizer, config["max_length"])
        for split, file in config["rows"].items()
    }
    model = load_model(config["model"], config["dtype"])
    model = get_peft_model(model, lora_config(config["sites"], model))
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=arguments(config, folder),
            train_dataset=rows.pop("train"),
            data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED),
        )
        trained = trainer.train()
        losses = {split: trainer.evaluate(found)["eval_loss"] for split, found in rows.items()}
    model.save_pretrained(config["adapter"])
    return {
        "steps": trained.global_step,
        "train_loss": trained.training_loss,
        "train_seconds": trained.metrics["train_runtime"],
        "losses": losses,
        "num_scored": {split: _total_scored(found) for split, found in rows.items()},
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "sites": adapted_sites(model),
        "device_bytes": torch.cuda.max_memory_allocated() if config["device"] == "cuda" else None,
    }


def _total_scored(rows: Sequence[Mapping[str, Sequence[int]]]) -> int:
    return sum(num_scored(row["labels"]) for row in rows)


def adapted_sites(model: Any) -> list[str]:
    """Return the paths of the maps that carry an adapter."""
    parts = model.get_base_model().named_modules()
    return sorted(name for name, part in parts if isinstance(part, LoraLayer))


def main(argv: Sequence[str]) -> None:
    """Read the trial's file, run it, write the result's."""
    config, result = map(Path, argv)
    found = run(json.loads(config.read_text(encoding="utf-8")))
    result.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
