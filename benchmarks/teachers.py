"""A teacher whose difference from the bundled model is known: changes of low rank at chosen sites.

Each change is a random matrix of low rank, and strong enough that it alone moves the model's
predictions on text of the bundled world by a set divergence. Rows are what the teacher writes when
it goes on from such a text: the loss of the untuned base on them has a known cause.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from loratlas.anatomy.sites import Anatomy, Site
from loratlas.data.demo.text import documents
from loratlas.score.sample import holder_of
from loratlas.train.base import Base

RANK = 2
"""Of each change: below the rank of the adapters that are to find it."""
DIVERGENCE = 0.3
"""Mean Kullback-Leibler divergence of the base from each change alone, nats per token."""
PROMPT_TOKENS, NEW_TOKENS = 8, 24
_TEXT_SEED = 7
_WEAKEST, _STRONGER = 1 / 16, 1.25
_NUM_TEXTS = 64


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
    strength = _WEAKEST
    while True:
        with changed(base, {site.path: update * strength}):
            after = _log_probabilities(base, texts)
        divergence = float((after.exp() * (after - before)).sum(-1).mean())
        if divergence >= DIVERGENCE:
            return Change(
                site=site, update=update * strength, strength=strength, divergence=divergence
            )
        strength *= _STRONGER


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
        found = base.model(input_ids=read, past_key_values=cache, use_cache=True)
        cache = found.past_key_values
        read = torch.multinomial(found.logits[:, -1].softmax(-1), 1, generator=chance)
        ids = torch.cat([ids, read], dim=1)
    return ids


@torch.no_grad()
def _log_probabilities(base: Base, ids: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = base.model(input_ids=ids).logits.log_softmax(-1)
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
