"""The smallest study that can be run: a model with its tokenizer, rows, and the study file."""

import json
import random
from pathlib import Path

_NAMES = ["Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana"]
_PLACES = ["Oslo", "Rome", "Lima", "Cairo", "Delhi", "Quito"]
_STUDY = """\
name: tiny
model: {model}
data:
  source: rows.jsonl
  format: prompt_completion
  train: 32
  validation: 8
  test: 12
  max_length: 48
placements:
  full: all
  attention: attention
baseline: full
lora: {{rank: 2, alpha: 4}}
training: {{steps: 3, batch: 4, learning_rate: 1e-2}}
seeds: 2
"""


def rows(seed: int, count: int) -> list[dict[str, str]]:
    """Return prompt/completion rows without repeats."""
    chance = random.Random(seed)
    return [
        {
            "prompt": f"Where does {chance.choice(_NAMES)} number {index} live?",
            "completion": f" In {chance.choice(_PLACES)}, since {1900 + chance.randrange(99)}.",
        }
        for index in range(count)
    ]


def write_model(folder: Path) -> None:
    """Write a GPT-2 of 3 layers and width 32 with random weights and a tokenizer of its own."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = [row["prompt"] + row["completion"] for row in rows(0, 200)]
    tokenizer.train_from_iterator(text, trainer)
    end = "<|endoftext|>"
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=end, eos_token=end, pad_token=end
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=3,
        n_embd=32,
        n_head=4,
        n_positions=64,
        vocab_size=400,
        bos_token_id=0,
        eos_token_id=0,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)


def write_study(folder: Path, model: str) -> None:
    """Write 60 rows and a study file: 2 placements, 2 seeds, 3 steps a trial."""
    lines = [json.dumps(row) for row in rows(1, 60)]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "study.yaml").write_text(_STUDY.format(model=model))
