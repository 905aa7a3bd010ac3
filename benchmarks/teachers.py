"""A teacher whose difference from the bundled model is known: changes of low rank at chosen sites.

Each change is a random matrix of low rank, and strong enough that it alone moves the model's
predictions on text of the bundled world by a set divergence. Rows are what the teacher writes when
it goes on from such a text: the loss of the untuned base on them has a known cause.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from materials import write_rows

from loratlas.anatomy.sites import Anatomy, Site
from loratlas.data.demo.text import documents
from loratlas.score.sample import holder_of
from loratlas.study.spec import StudySpec, load_study
from loratlas.train.base import Base

MODEL = "demo:gpt2"
RANK = 2
"""Of each change: below the rank of the adapters that are to find it."""
DIVERGENCE = 0.3
"""Mean Kullback-Leibler divergence of the base from each change alone, nats per token."""
PROMPT_TOKENS, NEW_TOKENS = 8, 24
SPLITS = {"train": 480, "validation": 120, "test": 120}
TRAINING = {"steps": 100, "batch": 16, "learning_rate": [5e-3, 2e-2], "warmup": 0.1}
QUICK_SPLITS = {"train": 96, "validation": 24, "test": 24}
QUICK_TRAINING = {"steps": 20, "batch": 16, "learning_rate": 2e-2}
PLANTED = "planted"
"""Name of the placement at all planted sites together."""
_TEXT_SEED = 7
# The strength is found by halving this range, on a scale of logarithms, to within 2%.
_STRENGTHS, _HALVINGS = (1 / 64, 64.0), 9
_NUM_TEXTS = 32


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Change:
    """What was added to the weight of one site.

    Attributes:
        site: where.
        update: in the layout of the weight.
        strength: its Frobenius norm, in units of the weight's.
        divergence: nats per token by which the change alone moves predictions.
    """

    site: Site
    update: torch.Tensor
    strength: float
    divergence: float


def chosen_sites(anatomy: Anatomy, size: int, seed: int) -> tuple[Site, ...]:
    """Return so many sites inside the blocks by chance, in the order of the model."""
    inside = [site for site in anatomy.sites if site.in_block]
    chosen = np.random.default_rng(seed).choice(len(inside), size, replace=False)
    return tuple(inside[number] for number in sorted(chosen))


def planted(base: Base, site: Site, seed: int) -> Change:
    """Return a change of one site that is as strong as it has to be.

    Args:
        base: what is changed for a while.
        site: where.
        seed: of the change.
    """
    holder, name = holder_of(base.model, site)
    weight = getattr(holder, name)
    texts = _texts(base, PROMPT_TOKENS + NEW_TOKENS, _NUM_TEXTS)
    before = _log_probabilities(base, texts)
    update = _low_rank(weight.shape, seed) * float(weight.norm())
    weak, strong = _STRENGTHS
    for _ in range(_HALVINGS):
        strength = math.sqrt(weak * strong)
        with changed(base, {site.path: update * strength}):
            after = _log_probabilities(base, texts)
        divergence = float((after.exp() * (after - before)).sum(-1).mean())
        weak, strong = (strength, strong) if divergence < DIVERGENCE else (weak, strength)
    return Change(site=site, update=update * strength, strength=strength, divergence=divergence)


@contextmanager
def changed(base: Base, updates: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Add to weights of the base for a while; afterwards they are as before, bit for bit."""
    weights = {path: base.model.get_submodule(path).weight for path in updates}
    before = {path: weight.detach().clone() for path, weight in weights.items()}
    try:
        with torch.no_grad():
            for path, weight in weights.items():
                weight.add_(updates[path])
        yield
    finally:
        with torch.no_grad():
            for path, weight in weights.items():
                weight.copy_(before[path])


def written_rows(
    base: Base, changes: Sequence[Change], count: int, seed: int
) -> list[dict[str, str]]:
    """Return texts of the bundled world as the teacher goes on from their beginnings.

    Args:
        base: the base, changed for a while.
        changes: what makes it the teacher.
        count: how many.
        seed: of the sampling.
    """
    prompts = _texts(base, PROMPT_TOKENS, count)
    with changed(base, {change.site.path: change.update for change in changes}):
        ids = sampled(base, prompts, torch.Generator().manual_seed(seed))
    end = base.tokenizer.eos_token_id
    found = []
    for row in ids.tolist():
        answer = row[PROMPT_TOKENS:]
        kept = answer[: answer.index(end)] if end in answer else answer
        found.append(
            {
                "prompt": base.tokenizer.decode(row[:PROMPT_TOKENS]),
                "completion": base.tokenizer.decode(kept),
            }
        )
    return found


@torch.no_grad()
def sampled(base: Base, prompts: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    """Return prompts with tokens drawn from the model's own distribution behind them.

    Args:
        base: the model.
        prompts: shape (rows, tokens).
        chance: of the draws.

    Returns:
        shape (rows, tokens + NEW_TOKENS).
    """
    ids, read, cache = prompts, prompts, None
    for _ in range(NEW_TOKENS):
        seen = torch.ones_like(ids)
        found = base.model(
            input_ids=read, attention_mask=seen, past_key_values=cache, use_cache=True
        )
        cache = found.past_key_values
        read = torch.multinomial(found.logits[:, -1].softmax(-1), 1, generator=chance)
        ids = torch.cat([ids, read], dim=1)
    return ids


def study_of(
    name: str,
    base: Base,
    changes: Sequence[Change],
    sites: Sequence[Site],
    folder: Path,
    *,
    quick: bool,
) -> StudySpec:
    """Write the teacher's rows and the study that adapts each site alone."""
    splits = QUICK_SPLITS if quick else SPLITS
    rows = written_rows(base, changes, sum(splits.values()), seed=0)
    folder.mkdir(parents=True, exist_ok=True)
    files = write_rows(rows, splits, folder)
    together = ", ".join(change.site.path for change in changes)
    document = {
        "name": name,
        "model": MODEL,
        "data": {
            "source": {split: file.name for split, file in files.items()},
            "format": "prompt_completion",
            "max_length": PROMPT_TOKENS + NEW_TOKENS,
        },
        "placements": {
            PLANTED: f"names({together})",
            **{site.path: f"names({site.path})" for site in sites},
        },
        "lora": {"rank": 2 * RANK, "alpha": 4 * RANK},
        "match": "none",
        "training": QUICK_TRAINING if quick else TRAINING,
        "seeds": 1 if quick else 2,
    }
    file = folder / "study.yaml"
    file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return load_study(file)


@torch.no_grad()
def _log_probabilities(base: Base, ids: torch.Tensor) -> torch.Tensor:
    logits = base.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    found: torch.Tensor = logits.log_softmax(-1)
    return found


def _texts(base: Base, num_tokens: int, count: int) -> torch.Tensor:
    """Return the beginnings of texts of the bundled world, shape (count, num_tokens)."""
    tokenizer = base.tokenizer
    encoded = (tokenizer(text).input_ids[:num_tokens] for text in documents(_TEXT_SEED))
    # Decoded and read again, a beginning has to be what it was.
    kept = (
        ids
        for ids in encoded
        if len(ids) == num_tokens and tokenizer(tokenizer.decode(ids)).input_ids == ids
    )
    return torch.tensor(list(islice(kept, count)))


def _low_rank(shape: torch.Size, seed: int) -> torch.Tensor:
    """Return a random matrix of rank `RANK` and Frobenius norm 1."""
    chance = torch.Generator().manual_seed(seed)
    left = torch.randn(shape[0], RANK, generator=chance)
    right = torch.randn(RANK, shape[1], generator=chance)
    product = left @ right
    return product / product.norm()
