"""How well a model predicts the scored tokens of some rows.

One scorer for every trial: the negative log-likelihood of each scored token given the
tokens before it, in fp32, summed per row. Labels are shifted once, here and nowhere else;
what is scored is what the study says is scored, and padding never is, whichever token it
shares its number with.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from loratlas.data.batches import TokenizedRow
from loratlas.data.collate import collate
from loratlas.measure.scores import SplitScore

IGNORED = -100
# Logits of one forward pass: 1 GiB in fp32, whatever the vocabulary.
_MOST_LOGITS = 2**28


@torch.no_grad()
def score(
    model: Any,
    rows: Sequence[TokenizedRow],
    *,
    pad_id: int,
    device: torch.device,
    batch: int = 16,
) -> SplitScore:
    """Score rows with a causal language model.

    Rows are batched by length, so that little is padded, and returned in the order given.

    Args:
        model: called with input_ids and attention_mask; returns logits (B, T, V).
        rows: what is scored.
        pad_id: the token that fills short rows.
        device: where the model lies.
        batch: rows of one forward pass; the result does not depend on it beyond rounding.
    """
    was_training = model.training
    model.eval()
    nll = np.zeros(len(rows), dtype=np.float64)
    by_length = sorted(range(len(rows)), key=lambda index: len(rows[index].ids))
    for indices in _batches(by_length, rows, batch, _vocabulary(model)):
        inputs = collate([rows[index] for index in indices], pad_id)
        nll[indices] = _batch_nll(model, inputs, device)
    model.train(was_training)
    return SplitScore(
        row=np.array([row.row for row in rows], dtype=np.int64),
        nll=nll,
        num_tokens=np.array([row.num_scored for row in rows], dtype=np.int64),
        num_bytes=np.array([row.num_bytes for row in rows], dtype=np.int64),
    )


def _vocabulary(model: Any) -> int:
    config = getattr(model, "config", None)
    return int(getattr(config, "vocab_size", None) or 1)


def _batches(
    order: Sequence[int], rows: Sequence[TokenizedRow], batch: int, vocabulary: int
) -> Iterator[list[int]]:
    """Yield indices of rows that are scored together; their logits stay under a limit."""
    waiting: list[int] = []
    for index in order:
        logits = (len(waiting) + 1) * len(rows[index].ids) * vocabulary
        if waiting and (len(waiting) == batch or logits > _MOST_LOGITS):
            yield waiting
            waiting = []
        waiting.append(index)
    if waiting:
        yield waiting


def _batch_nll(
    model: Any, inputs: dict[str, torch.Tensor], device: torch.device
) -> NDArray[np.float64]:
    """Return Σ -ln p per row, shape (B,)."""
    moved = {name: tensor.to(device) for name, tensor in inputs.items()}
    labels = moved.pop("labels")[:, 1:]
    logits = model(**moved).logits[:, :-1]
    scored = labels != IGNORED
    # Only rows of the head that are scored are widened to fp32: the vocabulary is large.
    log_probabilities = torch.log_softmax(logits[scored].float(), dim=-1)
    token_nll = -log_probabilities.gather(1, labels[scored].unsqueeze(1)).squeeze(1)
    sums = torch.zeros(labels.shape[0], dtype=torch.float64)
    owner = torch.nonzero(scored)[:, 0].cpu()
    sums.index_add_(0, owner, token_nll.double().cpu())
    result: NDArray[np.float64] = sums.numpy()
    return result
