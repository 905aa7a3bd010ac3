import numpy as np
import pytest
from tokenizers import processors

from loratlas.data.formats import Example, Segment
from loratlas.data.masked import Masking, masking_of, tokenize_masked
from loratlas.errors import DataError

TEXTS = ["the sky is blue with commas", "numbers such as 12", "a line of words " * 4]


@pytest.fixture(scope="module")
def tokenizer(make_tokenizer):
    made = make_tokenizer(mask_token="<|user|>", cls_token="<s>", sep_token="<|assistant|>")
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A <|assistant|>",
        special_tokens=[
            ("<s>", made.cls_token_id),
            ("<|assistant|>", made.sep_token_id),
        ],
    )
    return made


def examples(scored=True):
    return [
        Example(row=n, where=f"x:{n}", segments=(Segment(text=text, scored=scored),))
        for n, text in enumerate(TEXTS)
    ]


def tokenized(tokenizer, *, share=0.15, max_length=100, seed=(0, 2), scored=True):
    masking = masking_of(tokenizer, share)
    return tokenize_masked(examples(scored), tokenizer, masking, max_length=max_length, seed=seed)


def test_a_share_of_the_text_is_hidden_and_never_a_special_token(tokenizer):
    for row in tokenized(tokenizer, share=0.5).rows:
        plain = ~np.isin(row.ids, tokenizer.all_special_ids)
        assert row.scored.sum() == max(1, round(0.5 * plain.sum()))
        assert not (row.scored & ~plain).any()
        assert (row.masked[row.scored] == tokenizer.mask_token_id).all()
        assert (row.masked[~row.scored] == row.ids[~row.scored]).all()
        assert (row.labels[row.scored] == row.ids[row.scored]).all()


def test_bytes_are_those_of_the_hidden_tokens(tokenizer):
    for row in tokenized(tokenizer, share=1.0).rows:
        assert row.num_bytes == len(TEXTS[row.row].encode())
    (row, *_) = tokenized(tokenizer, share=0.01).rows
    hidden = tokenizer.decode(row.ids[row.scored])
    assert row.num_bytes == len(hidden.encode())


def test_masks_follow_from_the_seed_and_the_row_alone(tokenizer):
    first, second = tokenized(tokenizer).rows, tokenized(tokenizer).rows
    other = tokenized(tokenizer, seed=(1, 2)).rows
    for one, two in zip(first, second, strict=True):
        assert one.masked.tolist() == two.masked.tolist()
    assert any(
        one.masked.tolist() != two.masked.tolist() for one, two in zip(first, other, strict=True)
    )


def test_rows_for_training_are_masked_anew_at_each_visit(tokenizer):
    (row, *_) = tokenized(tokenizer, seed=None).rows
    assert row.masked is None
    masking = Masking(share=0.5, mask_id=tokenizer.mask_token_id, vocabulary=len(tokenizer))
    visits = [masking.corrupt(row, np.random.default_rng(n)) for n in range(2000)]
    chosen = np.concatenate([visit.masked[visit.scored] for visit in visits])
    truth = np.concatenate([visit.ids[visit.scored] for visit in visits])
    hidden = (chosen == tokenizer.mask_token_id).mean()
    kept = (chosen == truth).mean()
    # binomial with about 10,000 draws: five standard errors are 0.02 and 0.015
    assert hidden == pytest.approx(0.8, abs=0.02)
    assert kept == pytest.approx(0.1, abs=0.015)
    assert all((v.masked[~v.scored] == v.ids[~v.scored]).all() for v in visits)
    assert len({visit.scored.tobytes() for visit in visits}) > 10


def test_a_cut_row_keeps_its_end_and_rows_with_nothing_to_hide_are_counted(tokenizer):
    found = tokenized(tokenizer, max_length=6)
    assert found.num_truncated == 3
    for row in found.rows:
        assert len(row.ids) == 6
        assert row.ids[0] == tokenizer.cls_token_id
        assert row.ids[-1] == tokenizer.sep_token_id
    assert tokenized(tokenizer, scored=False).num_skipped == 3


def test_a_tokenizer_without_a_mask(make_tokenizer):
    with pytest.raises(DataError, match="has no mask token"):
        masking_of(make_tokenizer(), 0.15)
