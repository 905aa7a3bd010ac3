"""What a model says of every token of some rows: one pass, from which many figures follow."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from loratlas.data.collate import collate
from loratlas.data.rows import TokenizedRow

Nats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RowTable:
    """What a model says of one row of T tokens; -ln p, in nats, of shape (T,) unless said.

    Attributes:
        shifted: token t from the logits at t - 1; 0 for the first, which nothing predicts.
        unshifted: token t from the logits at t, where the model has just been given it.
        rounded: as `shifted`, the logits rounded to bfloat16.
        rounded_softmax: as `rounded`, the log-softmax computed in bfloat16, too.
        padding: the pad tokens that follow the row in its batch, shape (num_padding,).
    """

    shifted: Nats
    unshifted: Nats
    rounded: Nats
    rounded_softmax: Nats
    padding: Nats


def read_tables(
    model: Any, rows: Sequence[TokenizedRow], *, pad_id: int, device: torch.device, batch: int
) -> tuple[RowTable, ...]:
    """Run a causal language model over rows, in batches in their order, padded on the right.

    Logits of a whole batch are held at once, as in a training step of that batch.

    Args:
        model: called with input_ids and attention_mask; returns logits (B, T, V). Whether its
            dropout is on is left as it is.
        rows: what is scored.
        pad_id: the token that fills short rows.
        device: where the model lies.
        batch: rows of one forward pass, which decides how far each is padded.
    """
    tables: list[RowTable] = []
    for at in range(0, len(rows), batch):
        together = rows[at : at + batch]
        inputs = {name: held.to(device) for name, held in collate(together, pad_id).items()}
        del inputs["labels"]
        with torch.no_grad():
            logits = model(**inputs).logits
        tables += [
            _table(of_row, ids, len(row.ids))
            for of_row, ids, row in zip(logits, inputs["input_ids"], together, strict=True)
        ]
    return tuple(tables)


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Switch a model's dropout off for a while."""
    with _mode(model, training=False):
        yield


@contextmanager
def training(model: Any, device: torch.device, *, seed: int) -> Iterator[None]:
    """Leave a model's dropout on for a while, its masks drawn from a seed."""
    devices = [device] if device.type == "cuda" else []
    with _mode(model, training=True), torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def has_dropout(model: Any) -> bool:
    """Return whether any module of a model drops anything while it trains."""
    return any(_drops(module) for module in model.modules())


def _drops(module: torch.nn.Module) -> bool:
    if isinstance(module, torch.nn.Dropout):
        return module.p > 0
    # Attention keeps its rate as a number and hands it to the kernel.
    rates = [value for name, value in vars(module).items() if "drop" in name]
    return any(isinstance(rate, float) and rate > 0 for rate in rates)


@contextmanager
def _mode(model: Any, *, training: bool) -> Iterator[None]:
    before = model.training
    model.train(training)
    try:
        yield
    finally:
        model.train(before)


def _table(logits: torch.Tensor, ids: torch.Tensor, length: int) -> RowTable:
    """Read the table of one padded row.

    Args:
        logits: of the row and its padding, shape (L, V).
        ids: the row and its padding, shape (L,).
        length: tokens of the row, at most L.
    """
    low = logits.to(torch.bfloat16)
    log_p = torch.log_softmax(logits.float(), dim=-1)
    following = _nll(log_p[:-1], ids[1:])
    return RowTable(
        shifted=_from_second(following[: length - 1]),
        unshifted=_nll(log_p[:length], ids[:length]),
        rounded=_next(torch.log_softmax(low.float(), dim=-1), ids, length),
        rounded_softmax=_next(torch.log_softmax(low, dim=-1), ids, length),
        padding=following[length - 1 :],
    )


def _next(log_p: torch.Tensor, ids: torch.Tensor, length: int) -> Nats:
    return _from_second(_nll(log_p[: length - 1], ids[1:length]))


def _nll(log_p: torch.Tensor, targets: torch.Tensor) -> Nats:
    """Return -ln p of one target a position, shape (positions,)."""
    picked = -log_p.gather(1, targets.unsqueeze(1)).squeeze(1)
    nats: Nats = picked.double().cpu().numpy()
    return nats


def _from_second(nats: Nats) -> Nats:
    return np.concatenate([[0.0], nats])
