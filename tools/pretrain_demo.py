"""How the bundled model `demo:gpt2` was made: text from a seed, a tokenizer, a short pretraining.

    python tools/pretrain_demo.py --out src/loratlas/data/demo/gpt2

The text and the tokenizer depend on the seed alone. The weights are the same bit for bit
on one machine with one number of threads; elsewhere they differ by rounding.
"""

import argparse
import hashlib
import json
import math
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from loratlas.data.demo.text import NUM_DOCUMENTS, documents
from loratlas.data.demo.world import DEFAULT_SEED

END = "<|endoftext|>"


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Everything that decides what comes out, the number of threads aside."""

    seed: int = DEFAULT_SEED
    steps: int = 1200
    num_documents: int = NUM_DOCUMENTS
    vocabulary: int = 1536
    """At most; large enough for every word of the world to be one token."""
    layers: int = 6
    width: int = 160
    heads: int = 4
    context: int = 128
    batch: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    warmup: int = 100


def main() -> None:
    """Read the command line, train, and write the folder."""
    arguments = _parser().parse_args()
    recipe = Recipe(
        **{name: getattr(arguments, name) for name in Recipe.__dataclass_fields__},
    )
    torch.set_num_threads(arguments.threads)
    make(recipe, arguments.out, checkpoint_at=arguments.checkpoint_at)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--checkpoint-at", type=int, default=None, help="also write the folder after this step"
    )
    for name, value in asdict(Recipe()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    return parser


def make(recipe: Recipe, out: Path, *, checkpoint_at: int | None = None) -> None:
    """Write a loadable model folder, tokenizer and training card included."""
    texts = list(documents(recipe.seed, recipe.num_documents))
    tokenizer = train_tokenizer(texts, recipe)
    sequences = pack(tokenizer(texts)["input_ids"], tokenizer.eos_token_id, recipe)
    print(f"{len(texts)} documents, {len(tokenizer)} words in the vocabulary", flush=True)
    torch.manual_seed(recipe.seed)
    model = GPT2LMHeadModel(configuration(recipe, len(tokenizer), tokenizer.eos_token_id))
    card: dict[str, Any] = {
        "recipe": asdict(recipe),
        "parameters": model.num_parameters(),
        "text_sha256": digest(texts),
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    for step, loss, seconds in train(model, sequences, recipe):
        if step % 50 == 0 or step == recipe.steps:
            print(f"step {step:5d}  loss {loss:.4f}  {seconds:7.1f} s", flush=True)
        if step in (checkpoint_at, recipe.steps):
            tokens = step * recipe.batch * recipe.context
            card |= {"steps_done": step, "tokens": tokens, "final_loss": round(loss, 4)}
            save(model, tokenizer, card, out)


def digest(texts: list[str]) -> str:
    """Return the SHA-256 of documents, each ended by a zero byte."""
    return hashlib.sha256(b"".join(text.encode() + b"\0" for text in texts)).hexdigest()


def train_tokenizer(texts: list[str], recipe: Recipe) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer whose one special token begins, ends and pads."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=END,
        eos_token=END,
        pad_token=END,
        model_max_length=recipe.context,
        clean_up_tokenization_spaces=False,
    )


def configuration(recipe: Recipe, vocabulary: int, end: int) -> GPT2Config:
    """Return the architecture. Dropout is 0 so that losses of two runs can be compared."""
    return GPT2Config(
        vocab_size=vocabulary,
        n_positions=recipe.context,
        n_embd=recipe.width,
        n_layer=recipe.layers,
        n_head=recipe.heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        tie_word_embeddings=True,
    )


def pack(rows: list[list[int]], end: int, recipe: Recipe) -> torch.Tensor:
    """Return sequences of whole documents, the last one cut.

    Half of the sequences begin with the end token: a prompt should be understood at
    position 0 and after a beginning-of-text token alike.

    Returns:
        Token ids, shape (sequences, context).
    """
    rng = Random(f"pack/{recipe.seed}")
    sequences: list[list[int]] = []
    current: list[int] = []
    for row in rows:
        current += [*row, end]
        if len(current) >= recipe.context:
            sequences.append(current[: recipe.context])
            current = [end] if rng.random() < 0.5 else []
    return torch.tensor(sequences)


def train(
    model: GPT2LMHeadModel, sequences: torch.Tensor, recipe: Recipe
) -> Iterator[tuple[int, float, float]]:
    """Train in place with AdamW and a cosine, and yield (step, mean loss, seconds).

    The loss, in nats per token, is the mean of the last 50 steps.
    """
    optimizer = torch.optim.AdamW(
        _parameter_groups(model, recipe), lr=recipe.learning_rate, betas=(0.9, 0.98)
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, recipe))
    batches = _batches(sequences, recipe)
    recent: list[float] = []
    start = time.perf_counter()
    model.train()
    for step in range(1, recipe.steps + 1):
        ids = next(batches)
        # All ones: the end token also pads, and transformers warns where it may be padding.
        mask = torch.ones_like(ids)
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
        loss = functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        recent = [*recent[-49:], loss.item()]
        yield step, sum(recent) / len(recent), time.perf_counter() - start


def _parameter_groups(model: GPT2LMHeadModel, recipe: Recipe) -> list[dict[str, Any]]:
    """Decay matrices only, as is usual."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _rate(step: int, recipe: Recipe) -> float:
    """Return the share of the peak learning rate: linear warm-up, then a cosine to 0."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return 0.5 * (1 + math.cos(math.pi * done))


def _batches(sequences: torch.Tensor, recipe: Recipe) -> Iterator[torch.Tensor]:
    """Yield batches for ever, each pass over the sequences in a new order."""
    generator = torch.Generator().manual_seed(recipe.seed)
    while True:
        order = torch.randperm(len(sequences), generator=generator)
        for rows in order.split(recipe.batch):
            yield sequences[rows]


def save(
    model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, card: dict[str, Any], out: Path
) -> None:
    """Write weights as float16, tokenizer and card; the model itself stays float32."""
    half = GPT2LMHeadModel(model.config).half()
    half.load_state_dict(model.state_dict())
    half.save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "training.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    for file in out.iterdir():
        file.chmod(0o644)  # the weights are written readable by their owner alone


if __name__ == "__main__":
    main()
