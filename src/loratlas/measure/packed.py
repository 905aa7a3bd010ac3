"""How well do all trials of a pack predict what is scored of some rows, in shared passes?

The same figures as `loratlas.measure.likelihood.score` gives to each trial alone: Σ -ln p in fp32
at what the study says is scored, summed per row in float64.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from loratlas.data.rows import TokenizedRow
from loratlas.measure.scores import SplitScore
from loratlas.train.packed.flow import Flow, Passed, Unit
from loratlas.train.packed.loss import chunks, scored_spans

# Without gradients nothing is kept for the way back, so that passes can be larger.
_MOST_TOKENS = 4096


@torch.no_grad()
def score_packed(flow: Flow, rows: Sequence[TokenizedRow]) -> list[SplitScore]:
    """Score rows with every slot of an open flow.

    Args:
        flow: the base with the slots of the trials.
        rows: what is scored, the same for all.

    Returns:
        a score for each slot, rows in the order given.
    """
    flow.begin_scoring()
    count = len(flow.slots)
    nll = np.zeros((count, len(rows)))
    num_correct = np.zeros((count, len(rows)), dtype=np.int64)
    for indices in _batches(rows, count):
        some = [rows[index] for index in indices]
        for slots in _together(some, count):
            passed = flow.passed([Unit(slot, some) for slot in slots])
            for values, found in zip((nll, num_correct), _sums(flow, passed), strict=True):
                for number, unit in enumerate(passed.units):
                    own = slice(number * len(some), (number + 1) * len(some))
                    values[unit.slot, indices] = found[own]
    return [
        SplitScore(
            row=np.array([row.row for row in rows], dtype=np.int64),
            nll=nll[slot],
            num_tokens=np.array([row.num_scored for row in rows], dtype=np.int64),
            num_bytes=np.array([row.num_bytes for row in rows], dtype=np.int64),
            num_correct=num_correct[slot],
        )
        for slot in range(count)
    ]


def _together(rows: Sequence[TokenizedRow], count: int) -> Iterator[range]:
    """Yield slots that read rows in one pass: all of them, or fewer where one row is long."""
    most = max(1, _MOST_TOKENS // sum(row.num_read for row in rows))
    for start in range(0, count, most):
        yield range(start, min(start + most, count))


def _batches(rows: Sequence[TokenizedRow], count: int) -> Iterator[list[int]]:
    """Yield indices of rows of like length that all slots read together."""
    waiting: list[int] = []
    tokens = 0
    for index in sorted(range(len(rows)), key=lambda index: rows[index].num_read):
        more = rows[index].num_read * count
        if waiting and tokens + more > _MOST_TOKENS:
            yield waiting
            waiting, tokens = [], 0
        waiting.append(index)
        tokens += more
    if waiting:
        yield waiting


def _sums(flow: Flow, passed: Passed) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return Σ -ln p and right predictions of each row of a pass, in its order."""
    nll, correct = [], []
    for chunk in chunks(flow, scored_spans(passed)):
        part = slice(chunk[0].start, chunk[-1].stop)
        wanted = passed.targets.wanted[part]
        log_p = torch.log_softmax(flow.logits(passed.hidden[part], chunk).float(), dim=-1)
        nll.append(-log_p.gather(1, wanted[:, None])[:, 0])
        correct.append(log_p.argmax(dim=-1) == wanted)
    num_rows = sum(len(unit.rows) for unit in passed.units)
    row = passed.targets.row.cpu()

    def by_row(values: torch.Tensor) -> torch.Tensor:
        return torch.zeros(num_rows, dtype=values.dtype).index_add_(0, row, values.cpu())

    return by_row(torch.cat(nll).double()).numpy(), by_row(torch.cat(correct).long()).numpy()
