"""What would a method say of a subject in which there is nothing to find?

Two nulls. *labels*: the same base reads the same rows, and their targets are exchanged among all
rows, so that nothing can be learned from what stands where. *weights*: the same rows go through an
untrained model of the same configuration, which is drawn anew each time. Scores that come out the
same are about shapes, depth and the rows' own statistics (`allocate.agreement`).
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from loratlas.data.masked import Masking
from loratlas.data.rows import TokenizedRow, frozen_ids
from loratlas.data.spec import Task
from loratlas.score.scorer import Scorer, Subject
from loratlas.train.base import Base, weights_digest
from loratlas.train.head import initialise_head
from loratlas.train.randomness import exchange, null_seed

Null = Literal["labels", "weights"]
NULLS: tuple[Null, ...] = get_args(Null)


def why_no_null(null: Null, scorer: Scorer) -> str | None:
    """Return why a method cannot be held against a null, or None where it can."""
    if not scorer.needs.rows:
        return "it reads no rows"
    if null == "labels" and not scorer.needs.labels:
        return "it does not read what is predicted in them"
    return None


def null_subjects(null: Null, subject: Subject, count: int) -> Iterator[Subject]:
    """Yield draws of a null, one after another; each holds a model of its own while it is used.

    Args:
        null: which.
        subject: what stands beside it; its seed decides the draws.
        count: how many.
    """
    for draw in range(count):
        if null == "labels":
            yield with_exchanged_targets(subject, draw)
        else:
            yield replace(subject, base=untrained(subject.base, null_seed(subject.seed, draw)))


def with_exchanged_targets(subject: Subject, draw: int) -> Subject:
    """Return a subject whose rows are read as they were and predict each other's targets."""
    chance = exchange(subject.seed, draw)
    if subject.masking is not None:
        how = {each.name: getattr(subject.masking, each.name) for each in fields(subject.masking)}
        pool = chance.permutation(_targets(subject.rows))
        return replace(subject, masking=_Exchanged(**how, pool=pool))
    return replace(subject, rows=exchanged(subject.rows, subject.base.task, chance))


def exchanged(
    rows: Sequence[TokenizedRow], task: Task, chance: np.random.Generator
) -> tuple[TokenizedRow, ...]:
    """Return rows whose targets are permuted among all of them; what is read stays.

    Targets are the scored tokens, in classification the classes. In seq2seq, where the decoder
    reads what it wrote, whole rows change their sources instead.

    Args:
        rows: the rows, of a model that is not masked.
        task: what the model predicts.
        chance: decides the permutation.
    """
    if task == "classification":
        others = [rows[other] for other in chance.permutation(len(rows))]
        return tuple(replace(row, label=o.label) for row, o in zip(rows, others, strict=True))
    if task == "seq2seq":
        others = [rows[other] for other in chance.permutation(len(rows))]
        return tuple(replace(row, source=o.source) for row, o in zip(rows, others, strict=True))
    targets = chance.permutation(_targets(rows))
    ends = np.cumsum([row.num_scored for row in rows])
    return tuple(
        _predicting(row, part) for row, part in zip(rows, np.split(targets, ends[:-1]), strict=True)
    )


def untrained(base: Base, seed: int) -> Base:
    """Return a base of the same configuration whose weights are those a new model begins with."""
    devices = [base.device] if base.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        model = type(base.model)(copy.deepcopy(base.model.config))
    initialise_head(model, base.head, seed=seed)
    model = model.to(device=base.device, dtype=base.model.dtype).eval()
    model.requires_grad_(False)
    return replace(base, model=model, digest=weights_digest(model))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Exchanged(Masking):
    """Masks as before, and asks at each masked place for a token that stands somewhere else.

    Attributes:
        pool: the tokens that are asked for instead, in an order that differs between draws.
    """

    pool: NDArray[np.int32]

    def corrupt(self, row: TokenizedRow, chance: np.random.Generator) -> TokenizedRow:
        """Return a training row for one visit, with targets drawn from all rows."""
        # Not super(): a dataclass with slots is another class than the one written here.
        masked = Masking.corrupt(self, row, chance)
        return _predicting(masked, chance.choice(self.pool, size=masked.num_scored))


def _targets(rows: Sequence[TokenizedRow]) -> NDArray[np.int32]:
    return np.concatenate([row.ids[row.scored] for row in rows])


def _predicting(row: TokenizedRow, targets: NDArray[np.int32]) -> TokenizedRow:
    """Return a row that is read as it is and predicts other tokens at its scored places."""
    read = row.ids if row.masked is None else row.masked
    ids = row.ids.copy()
    ids[row.scored] = targets
    return replace(row, ids=frozen_ids(ids), masked=read)
