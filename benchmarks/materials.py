"""What do both sides of a benchmark start from? A model, a tokenizer and rows, in one folder.

The weights are random, since nothing that is timed depends on their values. Rows are given, or
drawn so that their lengths are distributed as Alpaca's are with GPT-2's tokenizer; the tokenizer
of drawn rows knows one word an id. ``python benchmarks/materials.py SHAPE.json FOLDER DTYPE``
writes the model; it is a process of its own so that the benchmark's stays small: Linux counts
the memory of a parent towards the peak of its children.
"""

import json
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from loratlas.data.formats import ALPACA_WITH_INPUT, ALPACA_WITHOUT_INPUT

GPT2_MEDIUM: Mapping[str, Any] = {
    "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 1024, "n_layer": 24,
    "n_head": 16, "n_positions": 1024, "vocab_size": 50257, "bos_token_id": 50256,
    "eos_token_id": 50256,
}  # fmt: skip
LLAMA_1B: Mapping[str, Any] = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 2048,
    "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256,
    "max_position_embeddings": 131072, "tie_word_embeddings": True, "bos_token_id": 128000,
    "eos_token_id": 128001,
}  # fmt: skip
QUANTILES = (
    (0.0, 20), (0.1, 30), (0.25, 48), (0.5, 76), (0.75, 104), (0.9, 149), (0.99, 215), (1.0, 256),
)  # fmt: skip
"""Share of rows, and the tokens that so many of them stay below: mean 84, median 76."""
_ANSWER_SHARE = (0.2, 0.8)
_END = "<|endoftext|>"

Row = dict[str, str]


class MaterialsError(Exception):
    """The files that were given cannot serve."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """Files that take the place of drawn rows.

    Attributes:
        tokenizer: folder with ``tokenizer.json``.
        rows: JSON lines with instruction, input and output, as Alpaca has them.
    """

    tokenizer: Path
    rows: Path


def given(tokenizer: Path | None, rows: Path | None) -> Given | None:
    """Return the files that were given, None where none were.

    Raises:
        MaterialsError: one was given without the other.
    """
    if tokenizer is None and rows is None:
        return None
    if tokenizer is None or rows is None:
        raise MaterialsError("--tokenizer and --rows belong together: give both or neither")
    return Given(tokenizer=tokenizer, rows=rows)


def write_model(shape: Mapping[str, Any], folder: Path, dtype: str) -> None:
    """Write a model of a shape with random weights, the same ones each time."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.CONFIG_MAPPING[shape["model_type"]].from_dict(dict(shape))
    model = getattr(transformers, shape["architectures"][0])(config)
    model.to({"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]).save_pretrained(folder)


def write_tokenizer(num_words: int, folder: Path) -> None:
    """Write a tokenizer for which the word ``w7`` is the id 7, and the last id ends a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    ids = {f"w{number}": number for number in range(num_words - 1)} | {_END: num_words - 1}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=_END))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=_END).save_pretrained(folder)


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Put a given tokenizer's files beside the model's.

    Raises:
        MaterialsError: the folder holds none.
    """
    if not (source / "tokenizer.json").is_file():
        raise MaterialsError(f"{source}: holds no tokenizer.json")
    for file in source.glob("*token*.json"):
        (folder / file.name).write_bytes(file.read_bytes())


def drawn_rows(count: int, num_words: int, longest: int) -> list[Row]:
    """Return rows of random words; their lengths lie evenly on `QUANTILES`, in random order.

    Args:
        count: how many.
        num_words: words of the tokenizer.
        longest: tokens of the longest row; the others change with it.
    """
    chance = random.Random(0)
    scale = longest / QUANTILES[-1][1]
    lengths = [max(4, round(scale * quantile((n + 0.5) / count))) for n in range(count)]
    chance.shuffle(lengths)
    return [_drawn_row(length, num_words, chance) for length in lengths]


def quantile(share: float) -> float:
    """Return the tokens that a share of the rows stays below."""
    for (low, shortest), (high, longest) in pairwise(QUANTILES):
        if share <= high:
            return shortest + (longest - shortest) * (share - low) / (high - low)
    raise ValueError(f"{share} is no share")


def _drawn_row(num_tokens: int, num_words: int, chance: random.Random) -> Row:
    """Return a row of so many tokens, the end of the text included."""
    words = [f"w{chance.randrange(num_words - 1)}" for _ in range(num_tokens - 1)]
    at = min(len(words) - 1, max(1, round(len(words) * (1 - chance.uniform(*_ANSWER_SHARE)))))
    return {"prompt": " ".join(words[:at]), "completion": " " + " ".join(words[at:])}


def alpaca_rows(file: Path, count: int) -> list[Row]:
    """Return the first rows of a file as prompts and completions, those without an answer left out.

    Raises:
        MaterialsError: there are too few, or a line is no such row.
    """
    found: list[Row] = []
    seen: set[str] = set()
    with file.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            if len(found) == count:
                break
            try:
                row = json.loads(line)
                template = ALPACA_WITH_INPUT if row["input"].strip() else ALPACA_WITHOUT_INPUT
                prompt = template.format(instruction=row["instruction"], input=row["input"])
                answer = row["output"]
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise MaterialsError(f"{file}:{number}: no row of Alpaca's: {error!r}") from error
            if answer.strip() and prompt not in seen:
                seen.add(prompt)
                found.append({"prompt": prompt, "completion": answer})
    if len(found) < count:
        raise MaterialsError(f"{file}: {count} rows are needed, and it holds {len(found)}")
    return found


def write_rows(rows: Sequence[Row], sizes: Mapping[str, int], folder: Path) -> dict[str, Path]:
    """Write the rows of each split into a file of its own; return the files by split."""
    files = {}
    start = 0
    for split, size in sizes.items():
        files[split] = folder / f"{split}.jsonl"
        lines = (json.dumps(row) + "\n" for row in rows[start : start + size])
        files[split].write_text("".join(lines), encoding="utf-8")
        start += size
    return files


def main(argv: Sequence[str]) -> None:
    """Write the model of a shape."""
    shape, folder, dtype = argv
    write_model(json.loads(Path(shape).read_text(encoding="utf-8")), Path(folder), dtype)


if __name__ == "__main__":
    main(sys.argv[1:])
