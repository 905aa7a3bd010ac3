"""Which tokens of a row does a masked language model have to find out?

A share of the tokens that the study scores is masked, never a special token, at least one a row.
Rows that are scored are masked once, from the data's own seed, so that every model is asked the
same. Training rows are masked anew at each visit, in BERT's way (Devlin et al., 2019, section
3.1): of the chosen tokens 80% become the mask, 10% another token, 10% stay as they are.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loratlas.data.encoding import TokenStream
from loratlas.data.formats import Example
from loratlas.data.rows import Tokenized, TokenizedRow, frozen_ids, frozen_marks
from loratlas.data.tokens import streams
from loratlas.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MASKED, _REPLACED = 0.8, 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Masking:
    """How rows are masked.

    Attributes:
        share: masked tokens among those that may be, at least one.
        mask_id: the token that hides another.
        vocabulary: entries of the tokenizer; a replaced token is drawn from all of them.
    """

    share: float
    mask_id: int
    vocabulary: int

    def corrupt(self, row: TokenizedRow, chance: np.random.Generator) -> TokenizedRow:
        """Return a training row for one visit; `chance` decides all of it."""
        chosen = self._choose(row.scored, chance)
        places = np.flatnonzero(chosen)
        fate = chance.random(len(places))
        masked = row.ids.copy()
        masked[places[fate < _MASKED]] = self.mask_id
        replaced = places[(fate >= _MASKED) & (fate < _MASKED + _REPLACED)]
        masked[replaced] = chance.integers(self.vocabulary, size=len(replaced))
        return replace(row, scored=frozen_marks(chosen), masked=frozen_ids(masked))

    def hide(
        self, row: TokenizedRow, token_bytes: NDArray[np.int64], chance: np.random.Generator
    ) -> TokenizedRow:
        """Return a row to be scored: every chosen token is hidden behind the mask.

        Args:
            row: the row, with what may be masked.
            token_bytes: UTF-8 bytes of each of its tokens, shape (num_tokens,).
            chance: decides which tokens are chosen.
        """
        chosen = self._choose(row.scored, chance)
        return replace(
            row,
            scored=frozen_marks(chosen),
            num_bytes=int(token_bytes[chosen].sum()),
            masked=frozen_ids(np.where(chosen, self.mask_id, row.ids)),
        )

    def _choose(self, allowed: NDArray[np.bool_], chance: np.random.Generator) -> NDArray[np.bool_]:
        places = np.flatnonzero(allowed)
        count = max(1, round(self.share * len(places)))
        chosen = np.zeros(len(allowed), dtype=np.bool_)
        chosen[chance.choice(places, size=count, replace=False)] = True
        return chosen


def masking_of(tokenizer: "PreTrainedTokenizerBase", share: float) -> Masking:
    """Return how a tokenizer masks.

    Raises:
        DataError: it has no mask token.
    """
    if tokenizer.mask_token_id is None:
        raise DataError(
            f"{type(tokenizer).__name__}: has no mask token, and a masked language model is "
            "trained and scored with one"
        )
    return Masking(share=share, mask_id=int(tokenizer.mask_token_id), vocabulary=len(tokenizer))


def tokenize_masked(
    examples: Sequence[Example],
    tokenizer: "PreTrainedTokenizerBase",
    masking: Masking,
    *,
    max_length: int,
    seed: Sequence[int] | None,
) -> Tokenized:
    """Tokenise examples for a masked language model; what has nothing to mask is left out.

    Args:
        examples: the rows.
        tokenizer: the base model's.
        masking: how rows are masked.
        max_length: tokens of a row; the tokenizer's own end is kept when a row is cut.
        seed: decides the masks of rows that are scored; None leaves the rows unmasked, for
            training.

    Raises:
        DataError: as for `loratlas.data.tokens.tokenize`.
    """
    rows: list[TokenizedRow] = []
    num_truncated = 0
    special = np.array(tokenizer.all_special_ids)
    for example, stream in zip(examples, streams(examples, tokenizer), strict=True):
        cut = _cut(stream, special, max_length)
        allowed = cut.scored & ~np.isin(cut.ids, special)
        if not allowed.any():
            continue
        row = TokenizedRow(
            row=example.row,
            ids=frozen_ids(cut.ids),
            scored=frozen_marks(allowed),
            num_bytes=int(cut.num_bytes[allowed].sum()),
        )
        if seed is not None:
            chance = np.random.default_rng([*seed, example.row])
            row = masking.hide(row, cut.num_bytes, chance)
        rows.append(row)
        num_truncated += len(stream.ids) > max_length
    return Tokenized(
        rows=tuple(rows), num_truncated=num_truncated, num_skipped=len(examples) - len(rows)
    )


def _cut(stream: TokenStream, special: NDArray[np.int64], max_length: int) -> TokenStream:
    """Cut a row in its text, so that the special tokens at its end stay there."""
    if len(stream.ids) <= max_length:
        return stream
    num_end = sum(1 for _ in _trailing(stream.ids, special))
    kept = np.arange(len(stream.ids))
    kept = np.concatenate([kept[: max_length - num_end], kept[len(kept) - num_end :]])
    return TokenStream(
        ids=stream.ids[kept], scored=stream.scored[kept], num_bytes=stream.num_bytes[kept]
    )


def _trailing(ids: NDArray[np.int32], special: NDArray[np.int64]) -> Iterator[int]:
    for token in reversed(ids.tolist()):
        if token not in special:
            return
        yield token
