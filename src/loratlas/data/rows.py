"""What is a row once it is tokenised, whatever kind of model reads it?"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IGNORED = -100
"""The label of a token that is not scored: what torch's cross-entropy leaves out."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TokenizedRow:
    """One row as the model sees it; its arrays are read-only.

    What `ids` and `scored` mean follows from the task:

    - causal: the row, and which of its tokens are targets (the first never is);
    - masked: the row, and which of its tokens are masked; in training, which may be;
    - seq2seq: what the decoder writes, and which of it are targets; `source` goes in;
    - classification: the row, of which nothing is scored; the target is `label`.
    """

    row: int
    """Place among the rows of its split in the source, from 0."""
    ids: NDArray[np.int32]
    """Token ids, shape (num_tokens,)."""
    scored: NDArray[np.bool_]
    """Which tokens are targets, shape (num_tokens,)."""
    num_bytes: int
    """UTF-8 bytes of the scored text, for bits per byte; special tokens have none."""
    source: NDArray[np.int32] | None = None
    """What the encoder reads, in seq2seq, shape (num_source,)."""
    masked: NDArray[np.int32] | None = None
    """`ids` with masks in them, where the model is to read those, shape (num_tokens,)."""
    types: NDArray[np.int32] | None = None
    """Which text of a pair each token belongs to, shape (num_tokens,)."""
    label: int | None = None
    """Index of the class, in classification."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """Unshifted labels, shape (num_tokens,): the id where scored, else -100."""
        return np.where(self.scored, self.ids, IGNORED).astype(np.int64)

    @property
    def num_scored(self) -> int:
        """How many predictions are scored: tokens, or the one class."""
        return int(self.scored.sum()) if self.label is None else 1

    @property
    def num_read(self) -> int:
        """Tokens that go through the model, those of encoder and decoder together."""
        return len(self.ids) + (0 if self.source is None else len(self.source))


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokenized:
    """The rows that have a target, and what happened to the others."""

    rows: tuple[TokenizedRow, ...]
    num_truncated: int
    """Rows among `rows` that were cut."""
    num_skipped: int
    """Rows left out because no scored token is left in them."""


def frozen_ids(ids: Iterable[int]) -> NDArray[np.int32]:
    """Return token ids as an array that nobody can write to."""
    array = np.array(list(ids), dtype=np.int32)
    array.setflags(write=False)
    return array


def frozen_marks(marks: Iterable[bool]) -> NDArray[np.bool_]:
    """Return marks as an array that nobody can write to."""
    array = np.array(list(marks), dtype=np.bool_)
    array.setflags(write=False)
    return array
