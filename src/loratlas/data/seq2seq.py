"""Which tokens does an encoder read, and which does its decoder have to write?

The prompt goes into the encoder and the answer is what the decoder writes, each with the special
tokens that the tokenizer puts around a text. Every token of the answer is a target, its first one
too: the decoder begins with a start token of its own. Special tokens before the answer are not.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from loratlas.data.encoding import EncodedText, encode_texts
from loratlas.data.formats import Example
from loratlas.data.rows import Tokenized, TokenizedRow, frozen_ids, frozen_marks
from loratlas.data.tokens import SpecialTokens, special_tokens
from loratlas.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def tokenize_pairs(
    examples: Sequence[Example], tokenizer: "PreTrainedTokenizerBase", *, max_length: int
) -> Tokenized:
    """Tokenise prompts and answers; each is cut at `max_length` tokens, its end kept.

    Raises:
        DataError: an example is not one prompt and one answer.
    """
    for example in examples:
        _require_pair(example)
    encoded = encode_texts([s.text for e in examples for s in e.segments], tokenizer)
    special = special_tokens(tokenizer)
    rows: list[TokenizedRow] = []
    num_truncated = 0
    for number, example in enumerate(examples):
        prompt, answer = encoded[2 * number], encoded[2 * number + 1]
        row = _row(example, prompt, answer, special, max_length)
        if row.num_scored:
            rows.append(row)
            room = max_length - len(special.start) - len(special.end)
            num_truncated += max(len(prompt.ids), len(answer.ids)) > room
    return Tokenized(
        rows=tuple(rows), num_truncated=num_truncated, num_skipped=len(examples) - len(rows)
    )


def _require_pair(example: Example) -> None:
    asked = [segment.scored for segment in example.segments]
    if asked == [False, True] and not any(segment.role for segment in example.segments):
        return
    if example.scores_all:
        raise DataError(
            "data.loss_on: everything: an encoder-decoder model reads the prompt in its encoder "
            "and predicts the answer alone; use loss_on: response"
        )
    raise DataError(
        f"{example.where}: an encoder-decoder model needs one prompt and one answer in each row; "
        "formats that have them: alpaca, prompt_completion, gsm8k"
    )


def _row(
    example: Example,
    prompt: EncodedText,
    answer: EncodedText,
    special: SpecialTokens,
    max_length: int,
) -> TokenizedRow:
    room = max(0, max_length - len(special.start) - len(special.end))
    written = answer.ids[:room]
    scored = [False] * len(special.start) + [True] * (len(written) + len(special.end))
    return TokenizedRow(
        row=example.row,
        ids=frozen_ids([*special.start, *written, *special.end]),
        scored=frozen_marks(scored if len(written) else [False] * len(scored)),
        num_bytes=int(answer.num_bytes[:room].sum()),
        source=frozen_ids([*special.start, *prompt.ids[:room], *special.end]),
    )
