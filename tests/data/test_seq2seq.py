import pytest
from tokenizers import processors

from loratlas.data.formats import Example, Segment
from loratlas.data.seq2seq import tokenize_pairs
from loratlas.errors import DataError


@pytest.fixture(scope="module")
def tokenizer(make_tokenizer):
    made = make_tokenizer()
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", made.eos_token_id)]
    )
    return made


def pair(prompt, answer, **options):
    segments = (Segment(text=prompt, scored=False), Segment(text=answer, scored=True))
    return Example(row=0, where="x:1", segments=segments, **options)


def plain(tokenizer, text):
    return tokenizer(text, add_special_tokens=False).input_ids


def test_prompt_and_answer_go_to_encoder_and_decoder(tokenizer):
    (row,) = tokenize_pairs([pair("the sky", " is blue.")], tokenizer, max_length=50).rows
    end = tokenizer.eos_token_id
    assert row.source.tolist() == [*plain(tokenizer, "the sky"), end]
    assert row.ids.tolist() == [*plain(tokenizer, " is blue."), end]
    assert row.scored.all(), "the first token is a target, too: the decoder has its own start"
    assert row.num_bytes == len(" is blue.")
    assert row.num_read == len(row.ids) + len(row.source)


def test_each_is_cut_by_itself_and_keeps_its_end(tokenizer):
    found = tokenize_pairs([pair("the sky " * 20, " blue" * 20)], tokenizer, max_length=8)
    (row,) = found.rows
    assert found.num_truncated == 1
    assert len(row.ids) == len(row.source) == 8
    assert row.ids[-1] == row.source[-1] == tokenizer.eos_token_id


def test_an_answer_that_is_cut_away_is_skipped(tokenizer):
    found = tokenize_pairs([pair("the sky", " is")], tokenizer, max_length=1)
    assert found.num_skipped == 1


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (
            Example(row=0, where="x:1", segments=(Segment(text="a", scored=True),)),
            "x:1: an encoder-decoder model needs one prompt and one answer in each row",
        ),
        (
            Example(
                row=0,
                where="x:1",
                segments=(Segment(text="a", scored=True), Segment(text="b", scored=True)),
                scores_all=True,
            ),
            "loss_on: everything: an encoder-decoder model reads the prompt in its encoder",
        ),
    ],
)
def test_what_has_no_answer_is_refused(tokenizer, example, message):
    with pytest.raises(DataError, match=message):
        tokenize_pairs([example], tokenizer, max_length=50)
