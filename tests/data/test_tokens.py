import pytest
from hypothesis import given
from hypothesis import strategies as st

from loratlas.data.encoding import encode_texts
from loratlas.data.formats import Example, Segment
from loratlas.data.tokens import special_tokens, tokenize
from loratlas.errors import NotYetError


def example(*parts, row=0):
    segments = tuple(Segment(text=text, scored=scored) for text, scored in parts)
    return Example(row=row, where="x:1", segments=segments)


def tokens(tokenizer, *parts, max_length=1000):
    (row,) = tokenize([example(*parts)], tokenizer, max_length=max_length).rows
    return row


def plain(tokenizer, text):
    return tokenizer(text, add_special_tokens=False).input_ids


@pytest.mark.parametrize("trim_offsets", [False, True])
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_bytes_of_tokens_add_up_to_the_text(make_tokenizer, trim_offsets, text):
    tokenizer = _cached(make_tokenizer, trim_offsets)
    (encoded,) = encode_texts([text], tokenizer)
    assert encoded.num_bytes.sum() == len(text.encode())
    assert (encoded.num_bytes >= 0).all()


_MADE = {}


def _cached(make_tokenizer, trim_offsets):
    if trim_offsets not in _MADE:
        _MADE[trim_offsets] = make_tokenizer(trim_offsets=trim_offsets)
    return _MADE[trim_offsets]


def test_prompt_and_answer_are_tokenised_apart(tokenizer):
    # "lin" and "e" would merge: "line" is one token of the corpus
    row = tokens(tokenizer, (" a lin", False), ("e.", True))
    prompt, answer = plain(tokenizer, " a lin"), plain(tokenizer, "e.")
    assert plain(tokenizer, " a line.") != prompt + answer
    assert row.ids.tolist() == [*prompt, *answer, tokenizer.eos_token_id]
    assert row.scored.tolist() == [False] * len(prompt) + [True] * (len(answer) + 1)
    assert row.num_bytes == 2


def test_labels_are_unshifted_and_end_of_text_is_scored(tokenizer):
    row = tokens(tokenizer, ("a", False), ("b", True))
    assert row.labels.tolist() == [-100, *plain(tokenizer, "b"), tokenizer.eos_token_id]
    assert row.num_scored == 2


def test_arrays_are_read_only(tokenizer):
    row = tokens(tokenizer, ("a", False), ("b", True))
    with pytest.raises(ValueError, match="read-only"):
        row.ids[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        row.scored[0] = True


def test_bos_is_added_only_where_the_tokenizer_adds_it(tokenizer, make_tokenizer):
    assert special_tokens(tokenizer).start == ()
    with_bos = make_tokenizer(bos=True)
    start = (with_bos.bos_token_id,)
    assert special_tokens(with_bos).start == start
    row = tokens(with_bos, ("a b", True))
    assert row.ids.tolist() == [*start, *plain(with_bos, "a b"), with_bos.eos_token_id]
    assert row.scored.tolist() == [False, *[True] * (len(row.ids) - 1)]
    assert row.num_bytes == 3


def test_special_tokens_that_the_text_holds_are_not_doubled(make_tokenizer):
    tokenizer = make_tokenizer(bos=True)
    row = tokens(tokenizer, ("<s>a", False), ("b<|endoftext|>", True))
    expected = [tokenizer.bos_token_id, *plain(tokenizer, "a"), *plain(tokenizer, "b")]
    assert row.ids.tolist() == [*expected, tokenizer.eos_token_id]
    assert row.labels.tolist()[-1] == tokenizer.eos_token_id


def test_without_an_end_of_text_token_none_is_appended(make_tokenizer):
    tokenizer = make_tokenizer(eos_token=None)
    assert special_tokens(tokenizer).end == ()
    assert tokens(tokenizer, ("a", False), ("b", True)).ids.tolist() == plain(tokenizer, "ab")


def test_the_first_token_of_a_text_is_not_scored_nor_are_its_bytes(tokenizer):
    row = tokens(tokenizer, ("a b c", True))
    assert row.scored.tolist() == [False, *[True] * (len(row.ids) - 1)]
    assert row.num_bytes == len(" b c")


def test_one_token_rows_are_skipped_and_counted(make_tokenizer):
    tokenizer = make_tokenizer(eos_token=None)
    examples = [example(("a", True), row=0), example(("a b", True), row=1)]
    found = tokenize(examples, tokenizer, max_length=10)
    assert [row.row for row in found.rows] == [1]
    assert found.num_skipped == 1


def test_long_rows_are_cut_and_counted(make_tokenizer, capsys, caplog):
    tokenizer = make_tokenizer(model_max_length=16)  # would make transformers warn
    kept = tokens(tokenizer, ("a", False), (" b" * 50, True), max_length=4)
    assert tokenizer.decode(kept.ids) == "a b "
    assert kept.num_bytes == len(" b ")
    examples = [
        example(("a", False), (" b" * 50, True)),
        example(("a b", False), (" b", True)),
        example(("a" * 50, False), (" b", True)),
    ]
    found = tokenize(examples, tokenizer, max_length=10)
    assert (len(found.rows), found.num_truncated, found.num_skipped) == (2, 1, 1)
    assert capsys.readouterr().err == ""
    assert caplog.records == []


def test_a_row_of_exactly_the_limit_is_not_truncated(tokenizer):
    row = tokens(tokenizer, ("a", False), (" b c d", True))
    found = tokenize([example(("a", False), (" b c d", True))], tokenizer, max_length=len(row.ids))
    assert found.num_truncated == 0
    assert found.rows[0].ids.tolist() == row.ids.tolist()


def test_slow_tokenizers_are_refused():
    class Slow:
        is_fast = False

    with pytest.raises(NotYetError, match="Slow: only tokenizers with character offsets"):
        encode_texts(["a"], Slow())
