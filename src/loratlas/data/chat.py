"""Which tokens is a conversation under the tokenizer's chat template, and which the assistant's?

A template with ``{% generation %}`` marks says itself which characters the assistant wrote. For
one without, the marks are derived: the conversation is rendered up to before and after each of
the assistant's turns, and the turn is what the second adds to the first. Where the two are not
prefixes of the whole (some templates rewrite earlier turns), nothing is guessed: it is an error.

Transformers makes a token mask of the marks through ``char_to_token``, which knows no token for
a trimmed space and then takes too many tokens or none; here the mask comes from the characters.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
from numpy.typing import NDArray

from loratlas.data.encoding import EncodedText, TokenStream, encode_texts
from loratlas.data.formats import Example
from loratlas.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")

_Span = tuple[int, int]


def chat_tokens(
    examples: Sequence[Example], tokenizer: "PreTrainedTokenizerBase"
) -> Iterator[TokenStream]:
    """Tokenise conversations with the tokenizer's chat template.

    Raises:
        DataError: there is no chat template, it refuses a conversation, or it does not let one
            see which characters are the assistant's.
    """
    chat = _chat_of(tokenizer)
    special_ids = np.array(sorted(chat.special), dtype=np.int32)
    rendered = [_render(example, chat) for example in examples]
    texts = encode_texts([text for text, _ in rendered], tokenizer)
    for text, (_, spans) in zip(texts, rendered, strict=True):
        scored = _inside(text, spans)
        num_bytes = np.where(np.isin(text.ids, special_ids), 0, text.num_bytes)
        yield TokenStream(ids=text.ids, scored=scored, num_bytes=num_bytes)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Chat:
    """What is known of a tokenizer's way to write conversations."""

    tokenizer: "PreTrainedTokenizerBase"
    template: str
    special: dict[int, str]
    """Special tokens: the text of each by its id."""


def _chat_of(tokenizer: "PreTrainedTokenizerBase") -> _Chat:
    try:
        template = str(tokenizer.get_chat_template())
    except ValueError as error:
        raise DataError(
            f"data.format: messages needs a chat template, and the tokenizer of "
            f"{tokenizer.name_or_path or 'this model'} has none; take a chat model, or another "
            "format (prompt_completion, alpaca)"
        ) from error
    special = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    added = tokenizer.added_tokens_decoder
    special |= {number: token.content for number, token in added.items() if token.special}
    return _Chat(tokenizer=tokenizer, template=template, special=special)


def _render(example: Example, chat: _Chat) -> tuple[str, list[_Span]]:
    """Return the conversation as text, and the stretches of it that are scored."""
    messages = [{"role": str(item.role), "content": item.text} for item in example.segments]
    try:
        if _GENERATION.search(chat.template) and not example.scores_all:
            return _render_marked(messages, chat)
        text = _render_text(messages, chat)
        if example.scores_all:
            return text, [(0, len(text))]
        return text, _spans_by_prefix(example, messages, text, chat)
    except jinja2.TemplateError as error:
        raise DataError(
            f"{example.where}: the chat template refuses this conversation: {error}"
        ) from error


def _render_marked(messages: list[dict[str, str]], chat: _Chat) -> tuple[str, list[_Span]]:
    # a function of transformers (5.20 and later) beneath apply_chat_template; imported here
    # because it loads torch
    from transformers.utils.chat_template_utils import render_jinja_template

    render: Any = render_jinja_template  # annotated as returning one string; it returns two lists
    texts, spans = render(
        conversations=[messages],
        chat_template=chat.template,
        return_assistant_tokens_mask=True,
        **chat.tokenizer.special_tokens_map,
    )
    return texts[0], spans[0]


def _render_text(
    messages: list[dict[str, str]],
    chat: _Chat,
    *,
    add_generation_prompt: bool = False,
) -> str:
    return str(
        chat.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=add_generation_prompt
        )
    )


def _spans_by_prefix(
    example: Example,
    messages: list[dict[str, str]],
    text: str,
    chat: _Chat,
) -> list[_Span]:
    spans = []
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = ""
        if number:
            before = _render_text(messages[:number], chat, add_generation_prompt=True)
        after = _render_text(messages[: number + 1], chat)
        turn = after.removeprefix(before)
        # the turn must begin with what the assistant says: neither a header nor anything that
        # the template invents may be scored unseen
        exact = after.startswith(before) and text.startswith(after)
        if not exact or not turn.lstrip().startswith(message["content"].strip()):
            raise DataError(
                f"{example.where}: zero supervised tokens: the chat template has no "
                "{% generation %} marks, and the text before and after message "
                f"{number + 1} does not show which part is the assistant's; mark it in the "
                "template, or set loss_on: everything"
            )
        spans.append((len(before), len(before) + _end_of_turn(turn, chat)))
    return spans


def _end_of_turn(turn: str, chat: _Chat) -> int:
    """Leave out the white space after an end-of-turn token: no model is asked to write it."""
    kept = turn.rstrip()
    return len(kept) if kept.endswith(tuple(chat.special.values())) else len(turn)


def _inside(text: EncodedText, spans: Sequence[_Span]) -> NDArray[np.bool_]:
    """Mark the tokens that begin inside a span.

    A token that begins before a span and reaches into it is not scored: part of it was given.
    A token of no width of its own (the rest of a character, a space that the tokenizer's offsets
    leave out) goes with the token before it.
    """
    starts = np.concatenate([[0], text.ends[:-1]])[: len(text.ends)]
    inside = np.zeros(len(text.ids), dtype=np.bool_)
    for start, end in spans:
        inside |= (starts >= start) & (starts < end)
    for at in np.flatnonzero(text.ends == starts):
        inside[at] = inside[at - 1] if at else False
    return inside
