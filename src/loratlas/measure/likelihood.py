"""How well a model predicts what is scored of some rows.

One scorer for every trial and every kind of model: the negative log-likelihood of each scored
prediction in fp32, summed per row. Labels are shifted once, here and nowhere else, and only for
causal models; what is scored is what the study says is scored, and padding never is, whichever
token it shares its number with.

- causal: each scored token given the tokens before it.
- masked: each masked token given the others; the masks are the rows' own, drawn once.
- seq2seq: each token of the answer given the encoder's text and the answer before it.
- classification: the class of the row.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from loratlas.data.collate import Collator
from loratlas.data.rows import IGNORED, TokenizedRow
from loratlas.measure.scores import SplitScore

# Logits of one forward pass: 1 GiB in fp32, whatever the vocabulary.
_MOST_LOGITS = 2**28


@torch.no_grad()
def score(
    model: Any,
    rows: Sequence[TokenizedRow],
    *,
    collator: Collator,
    device: torch.device,
    batch: int = 16,
) -> SplitScore:
    """Score rows with a model.

    Rows are batched by length, so that little is padded, and returned in the order given.

    Args:
        model: called with what the collator makes, labels left out; returns logits (B, T, V), or
            (B, classes) in classification.
        rows: what is scored.
        collator: makes the model's batches.
        device: where the model lies.
        batch: rows of one forward pass; the result does not depend on it beyond rounding.
    """
    was_training = model.training
    model.eval()
    found = _Sums.zero(len(rows))
    by_length = sorted(range(len(rows)), key=lambda index: rows[index].num_read)
    for indices in _batches(by_length, rows, batch, _width(model, collator)):
        part = _score_batch(model, collator([rows[index] for index in indices]), collator, device)
        for sums, of_batch in zip(found, part, strict=True):
            sums[indices] = of_batch
    model.train(was_training)
    is_class = collator.task == "classification"
    return SplitScore(
        row=np.array([row.row for row in rows], dtype=np.int64),
        nll=found.nll,
        num_tokens=np.array([row.num_scored for row in rows], dtype=np.int64),
        num_bytes=np.array([row.num_bytes for row in rows], dtype=np.int64),
        num_correct=found.num_correct,
        label=np.array([row.label for row in rows], dtype=np.int64) if is_class else None,
        predicted=found.predicted if is_class else None,
    )


class _Sums(NamedTuple):
    """What is found of each row, each of shape (rows,)."""

    nll: NDArray[np.float64]
    num_correct: NDArray[np.int64]
    predicted: NDArray[np.int64]

    @classmethod
    def zero(cls, count: int) -> "_Sums":
        return cls(np.zeros(count), np.zeros(count, np.int64), np.zeros(count, np.int64))


def _width(model: Any, collator: Collator) -> int:
    """Return the logits of one row and position."""
    config = getattr(model, "config", None)
    name = "num_labels" if collator.task == "classification" else "vocab_size"
    return int(getattr(config, name, None) or 1)


def _batches(
    order: Sequence[int], rows: Sequence[TokenizedRow], batch: int, width: int
) -> Iterator[list[int]]:
    """Yield indices of rows that are scored together; their logits stay under a limit."""
    waiting: list[int] = []
    for index in order:
        logits = (len(waiting) + 1) * rows[index].num_read * width
        if waiting and (len(waiting) == batch or logits > _MOST_LOGITS):
            yield waiting
            waiting = []
        waiting.append(index)
    if waiting:
        yield waiting


def _score_batch(
    model: Any, inputs: dict[str, torch.Tensor], collator: Collator, device: torch.device
) -> _Sums:
    moved = {name: tensor.to(device) for name, tensor in inputs.items()}
    labels = moved.pop("labels")
    logits, labels = _aligned(model(**moved).logits, labels, collator)
    scored = labels != IGNORED
    # Only rows of the head that are scored are widened to fp32: the vocabulary is large.
    log_probabilities = torch.log_softmax(logits[scored].float(), dim=-1)
    wanted = labels[scored]
    nll = -log_probabilities.gather(1, wanted.unsqueeze(1)).squeeze(1)
    best = log_probabilities.argmax(dim=-1)
    owner = torch.nonzero(scored)[:, 0].cpu()
    return _Sums(
        nll=_by_row(nll.double(), owner, len(labels)),
        num_correct=_by_row((best == wanted).long(), owner, len(labels)),
        predicted=_by_row(best, owner, len(labels)),
    )


def _aligned(
    logits: torch.Tensor, labels: torch.Tensor, collator: Collator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits (B, T, V) and the labels (B, T) that they predict, place by place."""
    if collator.task == "causal":
        return logits[:, :-1], labels[:, 1:]
    if collator.task == "classification":
        return logits[:, None], labels[:, None]
    return logits, labels


def _by_row(values: torch.Tensor, owner: torch.Tensor, num_rows: int) -> NDArray[Any]:
    """Return the sums of values over the rows that own them, shape (num_rows,)."""
    sums = torch.zeros(num_rows, dtype=values.dtype)
    result: NDArray[Any] = sums.index_add_(0, owner, values.cpu()).numpy()
    return result
