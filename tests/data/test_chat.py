import pytest

from loratlas.data.formats import Example, Segment
from loratlas.data.tokens import tokenize
from loratlas.errors import DataError

TALK = [("user", "Hi there"), ("assistant", "the sky"), ("user", "and"), ("assistant", "is blue")]

PLAIN = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}"
    "{% if m.role == 'assistant' %}<|endoftext|>{{ '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MARKED = (
    "{% for m in messages %}<|{{ m.role }}|>"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|endoftext|>"
    "{% endgeneration %}{{ '\n' }}{% else %}{{ m.content }}{% endif %}{% endfor %}"
)
# no start of turn is known before the answer: the header would be scored unseen
HEADER_HIDDEN = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
# earlier answers are rewritten once the conversation goes on
REWRITTEN = (
    "{% for m in messages %}<|{{ m.role }}|>"
    "{{ m.content if loop.last or m.role == 'user' else '...' }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def example(turns=TALK, scored="assistant"):
    segments = tuple(
        Segment(text=text, scored=scored in ("everything", role), role=role) for role, text in turns
    )
    scores_all = scored == "everything"
    return Example(row=3, where="chat.jsonl:4", segments=segments, scores_all=scores_all)


def tokens(tokenizer, given):
    (row,) = tokenize([given], tokenizer, max_length=500).rows
    return row


def scored_text(tokenizer, row):
    return tokenizer.decode(row.ids[row.scored])


@pytest.mark.parametrize("trim_offsets", [False, True])
@pytest.mark.parametrize("template", [PLAIN, MARKED])
def test_the_assistant_alone_is_scored(make_tokenizer, template, trim_offsets):
    tokenizer = make_tokenizer(chat_template=template, trim_offsets=trim_offsets)
    row = tokens(tokenizer, example())
    assert scored_text(tokenizer, row) == "the sky<|endoftext|>is blue<|endoftext|>"
    assert row.num_bytes == len("the skyis blue")
    whole = "<|user|>Hi there<|assistant|>the sky<|endoftext|>\n"
    assert tokenizer.decode(row.ids).startswith(whole)


def test_marks_give_the_mask_that_transformers_gives(make_tokenizer):
    tokenizer = make_tokenizer(chat_template=MARKED)
    messages = [{"role": role, "content": text} for role, text in TALK]
    theirs = tokenizer.apply_chat_template(messages, return_assistant_tokens_mask=True)
    row = tokens(tokenizer, example())
    assert row.ids.tolist() == theirs["input_ids"]
    assert row.scored.tolist() == [bool(mark) for mark in theirs["assistant_masks"]]


def test_everything_scores_all_but_the_first(make_tokenizer):
    tokenizer = make_tokenizer(chat_template=PLAIN)
    row = tokens(tokenizer, example(scored="everything"))
    assert row.scored.tolist() == [False, *[True] * (len(row.ids) - 1)]


def test_a_conversation_may_begin_with_the_assistant(make_tokenizer):
    tokenizer = make_tokenizer(chat_template=MARKED)
    row = tokens(tokenizer, example([("assistant", "the sky")]))
    assert scored_text(tokenizer, row) == "the sky<|endoftext|>"


@pytest.mark.parametrize("template", [HEADER_HIDDEN, REWRITTEN])
def test_where_the_mask_cannot_be_derived_nothing_is_guessed(make_tokenizer, template):
    tokenizer = make_tokenizer(chat_template=template)
    with pytest.raises(DataError) as caught:
        tokens(tokenizer, example())
    assert str(caught.value) == (
        "chat.jsonl:4: zero supervised tokens: the chat template has no {% generation %} marks, "
        "and the text before and after message 2 does not show which part is the assistant's; "
        "mark it in the template, or set loss_on: everything"
    )


def test_a_template_that_cannot_be_marked_can_be_scored_whole(make_tokenizer):
    row = tokens(make_tokenizer(chat_template=HEADER_HIDDEN), example(scored="everything"))
    assert row.num_scored == len(row.ids) - 1


def test_no_chat_template(tokenizer):
    with pytest.raises(DataError, match="messages needs a chat template, and the tokenizer of"):
        tokens(tokenizer, example())


def test_a_template_may_refuse_a_conversation(make_tokenizer):
    tokenizer = make_tokenizer(chat_template="{{ raise_exception('roles must alternate') }}")
    with pytest.raises(DataError) as caught:
        tokens(tokenizer, example())
    assert str(caught.value) == (
        "chat.jsonl:4: the chat template refuses this conversation: roles must alternate"
    )


def test_a_marked_stretch_that_ends_in_a_space_does_not_swallow_the_rest(make_tokenizer):
    # transformers' own mask finds no token for the trimmed space and scores the user's turn too
    template = MARKED.replace("{{ m.content }}<|endoftext|>", "{{ m.content }} ")
    template = template.replace("{{ '\n' }}", "")
    tokenizer = make_tokenizer(chat_template=template, trim_offsets=True)
    messages = [{"role": role, "content": text} for role, text in TALK]
    theirs = tokenizer.apply_chat_template(messages, return_assistant_tokens_mask=True)
    row = tokens(tokenizer, example())
    assert scored_text(tokenizer, row) == "the sky is blue "
    assert sum(theirs["assistant_masks"]) > row.num_scored
