"""Which tokens is a text, and how many bytes of it does each token stand for?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loratlas.errors import NotYetError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EncodedText:
    """The tokens of one text. Token i stands for the characters from ends[i-1] to ends[i].

    So the tokens cover the text without a gap, whether the tokenizer's own offsets leave out
    spaces or not, and whether or not a character is spread over several tokens (it then counts
    for the first of them).
    """

    ids: NDArray[np.int32]
    """Token ids, shape (num_tokens,)."""
    ends: NDArray[np.int64]
    """Character after the last one of each token, shape (num_tokens,); never decreasing."""
    num_bytes: NDArray[np.int64]
    """UTF-8 bytes of each token, shape (num_tokens,); they add up to those of the text."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TokenStream:
    """All tokens of one row, before it is cut. Every array has the shape (num_tokens,)."""

    ids: NDArray[np.int32]
    scored: NDArray[np.bool_]
    num_bytes: NDArray[np.int64]
    """UTF-8 bytes of text that a token stands for; special tokens stand for none."""


def encode_texts(
    texts: Sequence[str], tokenizer: "PreTrainedTokenizerBase"
) -> tuple[EncodedText, ...]:
    """Tokenise texts as they are: no special token is added, nothing is cut.

    Raises:
        NotYetError: the tokenizer cannot say which characters a token stands for.
    """
    if not tokenizer.is_fast:
        raise NotYetError(
            f"{type(tokenizer).__name__}: only tokenizers with character offsets are served "
            "(those with a tokenizer.json)"
        )
    if not texts:
        return ()
    encoded = tokenizer(
        list(texts),
        add_special_tokens=False,
        return_attention_mask=False,
        return_offsets_mapping=True,
        verbose=False,  # rows longer than the model's context are cut and counted by the caller
    )
    pairs = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    return tuple(
        _encoded(text, ids, offsets) for text, (ids, offsets) in zip(texts, pairs, strict=True)
    )


def _encoded(text: str, ids: list[int], offsets: list[tuple[int, int]]) -> EncodedText:
    ends = np.fromiter((end for _, end in offsets), dtype=np.int64, count=len(offsets))
    ends = np.maximum.accumulate(ends)
    ends[-1:] = len(text)  # what the last token's offset leaves out still belongs to the text
    bytes_before = utf8_bytes_before(text)
    return EncodedText(
        ids=np.array(ids, dtype=np.int32),
        ends=ends,
        num_bytes=np.diff(bytes_before[ends], prepend=0),
    )


def utf8_bytes_before(text: str) -> NDArray[np.int64]:
    """Return how many UTF-8 bytes stand before each character, shape (len(text) + 1,)."""
    code_points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    widths = 1 + sum((code_points >= limit).astype(np.int64) for limit in (0x80, 0x800, 0x10000))
    return np.concatenate([[0], np.cumsum(widths)]).astype(np.int64)
