"""Which tokens does a row of a causal model become, and which of them are scored?

A token is *scored* when it is a target: token t is predicted from the tokens before it. Labels
are therefore the ids themselves where scored and -100 elsewhere, unshifted, as transformers'
models expect them (they shift). The first token of a row has nothing before it and is never scored.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from loratlas.data.chat import chat_tokens
from loratlas.data.encoding import EncodedText, TokenStream, encode_texts
from loratlas.data.formats import Example
from loratlas.data.rows import Tokenized, TokenizedRow, frozen_ids, frozen_marks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True, slots=True)
class SpecialTokens:
    """What a tokenizer puts around a text of its own accord, and the end that is appended."""

    start: tuple[int, ...]
    """Ids before a text; empty for GPT-2, BOS for Llama."""
    end: tuple[int, ...]
    """Ids after an answer; EOS, or what the tokenizer itself puts there."""


def special_tokens(tokenizer: "PreTrainedTokenizerBase") -> SpecialTokens:
    """Find out, by looking at one text, which special tokens belong around a row."""
    bare = list(tokenizer("a", add_special_tokens=False).input_ids)
    full = list(tokenizer("a").input_ids)
    starts = [at for at in range(len(full)) if full[at : at + len(bare)] == bare]
    start = tuple(full[: starts[0]]) if starts else ()
    end = tuple(full[starts[0] + len(bare) :]) if starts else ()
    if not end and tokenizer.eos_token_id is not None:
        end = (int(tokenizer.eos_token_id),)
    return SpecialTokens(start=start, end=end)


def tokenize(
    examples: Sequence[Example], tokenizer: "PreTrainedTokenizerBase", *, max_length: int
) -> Tokenized:
    """Tokenise examples, cut them at `max_length` tokens, and leave out what has no target.

    Raises:
        DataError: the tokenizer has no chat template and the examples are conversations, or the
            template does not let one see which tokens are the assistant's.
    """
    rows: list[TokenizedRow] = []
    num_truncated = 0
    for example, stream in zip(examples, streams(examples, tokenizer), strict=True):
        row = _cut(example, stream, max_length=max_length)
        if row.num_scored:
            rows.append(row)
            num_truncated += len(stream.ids) > max_length
    return Tokenized(
        rows=tuple(rows), num_truncated=num_truncated, num_skipped=len(examples) - len(rows)
    )


def streams(
    examples: Sequence[Example], tokenizer: "PreTrainedTokenizerBase"
) -> Iterator[TokenStream]:
    """Yield all tokens of each example, special tokens included, before anything is cut.

    Raises:
        DataError: as for `tokenize`.
    """
    conversation = any(segment.role is not None for e in examples for segment in e.segments)
    return chat_tokens(examples, tokenizer) if conversation else _plain_tokens(examples, tokenizer)


def _plain_tokens(
    examples: Sequence[Example], tokenizer: "PreTrainedTokenizerBase"
) -> Iterator[TokenStream]:
    # Segments are tokenised apart and joined. Tokenised together, a token could reach over the
    # boundary (BPE merges two line breaks, or a colon and a bracket): it would be part prompt,
    # part answer, and the ids of the prompt would depend on the answer that follows it.
    texts = [segment.text for example in examples for segment in example.segments]
    encoded = iter(encode_texts(texts, tokenizer))
    special = special_tokens(tokenizer)
    for example in examples:
        yield _join([(next(encoded), segment.scored) for segment in example.segments], special)


def _join(parts: Sequence[tuple[EncodedText, bool]], special: SpecialTokens) -> TokenStream:
    """Join a row's segments, with the special tokens that its text does not hold already."""
    pieces = [
        TokenStream(ids=text.ids, scored=np.full(len(text.ids), scored), num_bytes=text.num_bytes)
        for text, scored in parts
    ]
    first, last = parts[0], parts[-1]
    if tuple(first[0].ids[: len(special.start)]) != special.start:
        pieces.insert(0, _special_stream(special.start, scored=False))
    if tuple(last[0].ids[len(last[0].ids) - len(special.end) :]) != special.end:
        pieces.append(_special_stream(special.end, scored=last[1]))
    return TokenStream(
        ids=np.concatenate([piece.ids for piece in pieces]),
        scored=np.concatenate([piece.scored for piece in pieces]),
        num_bytes=np.concatenate([piece.num_bytes for piece in pieces]),
    )


def _special_stream(ids: tuple[int, ...], *, scored: bool) -> TokenStream:
    return TokenStream(
        ids=np.array(ids, dtype=np.int32),
        scored=np.full(len(ids), scored),
        num_bytes=np.zeros(len(ids), dtype=np.int64),
    )


def _cut(example: Example, stream: TokenStream, *, max_length: int) -> TokenizedRow:
    scored = stream.scored[:max_length].copy()
    scored[:1] = False
    return TokenizedRow(
        row=example.row,
        ids=frozen_ids(stream.ids[:max_length]),
        scored=frozen_marks(scored),
        num_bytes=int(stream.num_bytes[:max_length][scored].sum()),
    )
