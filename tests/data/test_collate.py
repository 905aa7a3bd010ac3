import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from loratlas.data.collate import collate
from loratlas.data.formats import Example, Segment
from loratlas.data.tokens import tokenize


@pytest.fixture
def rows(tokenizer):
    answers = [" is blue.", " b"]
    examples = [
        Example(
            row=number,
            where="x:1",
            segments=(Segment(text="the sky", scored=False), Segment(text=answer, scored=True)),
        )
        for number, answer in enumerate(answers)
    ]
    return tokenize(examples, tokenizer, max_length=100).rows


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=400, n_positions=64, n_embd=16, n_layer=1, n_head=2)
    return GPT2LMHeadModel(config).eval()


def nll_by_hand(logits, row):
    """Σ over scored tokens t of -log p(token t | tokens before t), each written out."""
    log_probabilities = torch.log_softmax(logits.double(), dim=-1)
    return -sum(
        log_probabilities[place - 1, int(row.ids[place])]
        for place in range(len(row.ids))
        if row.scored[place]
    )


@torch.no_grad()
def test_the_loss_of_transformers_is_the_mean_over_scored_tokens(model, rows):
    for row in rows:
        batch = collate([row], pad_id=0)
        theirs = model(**batch).loss
        logits = model(input_ids=batch["input_ids"]).logits[0]
        ours = nll_by_hand(logits, row) / row.num_scored
        # float32 sums of about ten terms of size 6
        assert theirs.item() == pytest.approx(ours.item(), rel=1e-5)


@torch.no_grad()
def test_padding_does_not_change_the_sum_whatever_the_pad_id(model, tokenizer, rows):
    alone = sum(nll_by_hand(model(**collate([row], 0)).logits[0], row) for row in rows)
    scored = sum(row.num_scored for row in rows)
    for pad_id in (0, 7, tokenizer.eos_token_id):
        loss = model(**collate(rows, pad_id)).loss
        assert (loss * scored).item() == pytest.approx(alone.item(), rel=1e-5)


def test_a_pad_id_equal_to_end_of_text_hides_no_label(tokenizer, rows):
    batch = collate(rows, tokenizer.eos_token_id)
    ends = (batch["labels"] == tokenizer.eos_token_id).sum(dim=1)
    assert ends.tolist() == [1, 1]


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding(rows, side):
    long, short = rows
    assert len(long.ids) > len(short.ids)
    batch = collate(rows, 9, padding_side=side)
    longest = len(long.ids)
    for number, row in enumerate(rows):
        length = len(row.ids)
        place = slice(longest - length, longest) if side == "left" else slice(0, length)
        expected = {
            "input_ids": torch.full((longest,), 9),
            "attention_mask": torch.zeros(longest, dtype=torch.int64),
            "labels": torch.full((longest,), -100),
        }
        expected["input_ids"][place] = torch.tensor(row.ids.tolist())
        expected["attention_mask"][place] = 1
        expected["labels"][place] = torch.tensor(row.labels.tolist())
        for name, tensor in expected.items():
            assert torch.equal(batch[name][number], tensor), name
            assert batch[name].dtype == torch.int64


def test_what_cannot_be_a_batch():
    with pytest.raises(ValueError, match="there are no rows"):
        collate([], 0)
