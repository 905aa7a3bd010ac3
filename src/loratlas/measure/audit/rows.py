"""What an audit has to know about the rows it scores, beside their tokens. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loratlas.data.rows import TokenizedRow
from loratlas.data.tokens import special_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Marks = tuple[NDArray[np.bool_], ...]
"""Which tokens of each row, each of shape (num_tokens,)."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AuditRows:
    """Rows with what the variants need to know about them.

    Attributes:
        rows: the token rows, in the order of the data; batches are cut from this order.
        answers: which tokens belong to the answer; None where the rows tell no answer from a
            prompt.
        num_words: words of the scored text, split at blanks, shape (rows,).
        pad_id: the token that fills short rows.
        end_id: the tokenizer's end of text, None where it has none.
        start_ids: what the tokenizer puts before a text of its own accord.
        bos_id: the tokenizer's beginning of text, None where it has none.
    """

    rows: tuple[TokenizedRow, ...]
    answers: Marks | None
    num_words: NDArray[np.int64]
    pad_id: int
    end_id: int | None
    start_ids: tuple[int, ...]
    bos_id: int | None

    @property
    def scored(self) -> Marks:
        """The tokens that the study scores."""
        return tuple(row.scored for row in self.rows)

    @property
    def everything(self) -> Marks:
        """Every token that has one before it."""
        return tuple(np.arange(len(row.ids)) > 0 for row in self.rows)

    @property
    def ends(self) -> Marks:
        """Every end of text that has a token before it."""
        end = -1 if self.end_id is None else self.end_id
        return tuple(
            (row.ids == end) & every for row, every in zip(self.rows, self.everything, strict=True)
        )


def audit_rows(
    rows: Sequence[TokenizedRow],
    tokenizer: "PreTrainedTokenizerBase",
    *,
    pad_id: int,
    answers: Marks | None,
) -> AuditRows:
    """Gather what an audit needs to know about rows.

    Args:
        rows: what is scored.
        tokenizer: the one that made them.
        pad_id: the token that fills short rows.
        answers: which tokens belong to the answer, None where nothing says so.
    """
    end, bos = tokenizer.eos_token_id, tokenizer.bos_token_id
    return AuditRows(
        rows=tuple(rows),
        answers=answers,
        num_words=np.array([_num_words(row, tokenizer) for row in rows], dtype=np.int64),
        pad_id=pad_id,
        end_id=None if end is None else int(end),
        start_ids=special_tokens(tokenizer).start,
        bos_id=None if bos is None else int(bos),
    )


def same_marks(left: Marks, right: Marks) -> bool:
    """Return whether the same tokens are marked in every row."""
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def _num_words(row: TokenizedRow, tokenizer: "PreTrainedTokenizerBase") -> int:
    text = tokenizer.decode(row.ids[row.scored].tolist(), skip_special_tokens=True)
    return len(str(text).split())
