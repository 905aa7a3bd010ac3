import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import Trainer, TrainingArguments

from loratlas.data.collate import Collator, collate
from loratlas.data.rows import TokenizedRow
from loratlas.measure import likelihood
from loratlas.measure.likelihood import score

CPU = torch.device("cpu")


def scored(base, rows, **changes):
    return score(base.model, rows, collator=base.collator, device=CPU, **changes)


def one_by_one(base, rows):
    """Σ -ln p(token | tokens before) for every row, in the plainest torch there is."""
    found = []
    with torch.no_grad():
        for row in rows:
            logits = base.model(torch.tensor([row.ids.tolist()])).logits[0].double()
            total = 0.0
            for position in range(1, len(row.ids)):
                if row.scored[position]:
                    probabilities = torch.softmax(logits[position - 1], dim=-1)
                    total -= math.log(probabilities[int(row.ids[position])])
            found.append(total)
    return found


def test_each_row_is_what_plain_torch_says(base, prepared):
    rows = prepared.test.rows
    # fp32 logits against float64 arithmetic on them: about 1e-7 a token.
    assert scored(base, rows).nll.tolist() == pytest.approx(one_by_one(base, rows), rel=1e-5)


def test_the_loss_is_trainers_where_trainer_is_right(base, prepared, tmp_path):
    """With one row a batch Trainer's mean of batch means is right when it weighs rows equally."""
    row = prepared.test.rows[0]
    args = TrainingArguments(
        output_dir=str(tmp_path), per_device_eval_batch_size=1, report_to="none", use_cpu=True,
        remove_unused_columns=False, disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(
        model=base.model,
        args=args,
        eval_dataset=[row],
        data_collator=lambda rows: collate(rows, base.pad_id),
    )
    theirs = trainer.evaluate()["eval_loss"]
    assert scored(base, [row]).loss == pytest.approx(theirs, rel=1e-6)


def test_it_does_not_depend_on_batch_size_or_order(base, prepared):
    rows = prepared.test.rows
    whole = scored(base, rows, batch=len(rows))
    for batch in (1, 5):
        assert scored(base, rows, batch=batch).nll == pytest.approx(whole.nll, rel=1e-6)
    reverse = scored(base, rows[::-1], batch=5)
    assert reverse.nll[::-1] == pytest.approx(whole.nll, rel=1e-6)
    assert reverse.row[::-1].tolist() == whole.row.tolist()


def test_the_corpus_loss_weighs_tokens_not_rows(base, prepared):
    found = scored(base, prepared.test.rows)
    assert found.loss == pytest.approx(found.nll.sum() / found.num_tokens.sum())
    assert found.perplexity == pytest.approx(math.exp(found.loss))
    assert found.bits_per_byte == pytest.approx(
        found.nll.sum() / math.log(2) / found.num_bytes.sum()
    )
    assert found.num_tokens.tolist() == [row.num_scored for row in prepared.test.rows]


def test_labels_are_shifted_once(base):
    """A model that copies its input is perfect without the shift, and must look bad with it."""

    class Copier(torch.nn.Module):
        def forward(self, input_ids, attention_mask):  # noqa: ARG002
            logits = 50.0 * torch.nn.functional.one_hot(input_ids, 400).float()
            return type("Output", (), {"logits": logits})

    ids = np.array([5, 6, 7, 8], dtype=np.int32)
    row = TokenizedRow(row=0, ids=ids, scored=np.array([False, True, True, True]), num_bytes=3)
    found = score(Copier(), [row], collator=Collator(pad_id=0), device=CPU)
    assert found.loss == pytest.approx(50.0, rel=1e-3)
    assert found.accuracy == 0


@pytest.mark.parametrize("side", ["left", "right"])
def test_it_does_not_depend_on_the_padding_side(base, prepared, side):
    rows = prepared.test.rows
    alone = scored(base, rows, batch=1)
    collator = replace(base.collator, padding_side=side)
    found = score(_WithPositions(base.model), rows, collator=collator, device=CPU, batch=5)
    assert found.nll == pytest.approx(alone.nll, rel=1e-6)


class _WithPositions(torch.nn.Module):
    """A model told the positions, as every caller of GPT-2 has to that pads on the left."""

    def __init__(self, model):
        super().__init__()
        self.model, self.config = model, model.config

    def forward(self, attention_mask, **inputs):
        positions = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)
        return self.model(attention_mask=attention_mask, position_ids=positions, **inputs)


def test_token_accuracy_counts_most_likely_tokens(base, prepared):
    rows = prepared.test.rows
    hits = []
    with torch.no_grad():
        for row in rows:
            best = base.model(torch.tensor([row.ids.tolist()])).logits[0].argmax(-1)
            places = [p for p in range(1, len(row.ids)) if row.scored[p]]
            hits.append(sum(int(best[p - 1]) == int(row.ids[p]) for p in places))
    assert scored(base, rows).num_correct.tolist() == hits


def test_padding_is_never_scored_even_when_it_is_the_end_token(base, prepared):
    row = prepared.test.rows[0]
    assert int(row.ids[-1]) == base.pad_id, "the row ends with the token that also pads"
    longest = max(prepared.test.rows, key=lambda other: len(other.ids))
    alone, together = scored(base, [row]), scored(base, [row, longest])
    assert together.nll[0] == pytest.approx(alone.nll[0], rel=1e-6)


def test_dropout_is_off_while_scoring(base, prepared):
    base.model.train()
    first, second = (scored(base, prepared.test.rows) for _ in range(2))
    assert np.array_equal(first.nll, second.nll)
    assert base.model.training
    base.model.eval()


def test_a_row_without_scored_tokens_counts_as_nothing(base, prepared):
    row = prepared.test.rows[0]
    empty = replace(row, scored=np.zeros_like(row.scored), num_bytes=0)
    found = scored(base, [row, empty])
    assert found.nll[1] == 0
    assert found.num_tokens[1] == 0
    assert found.loss == pytest.approx(scored(base, [row]).loss, rel=1e-6)


def test_the_logits_of_one_pass_stay_under_a_limit(base, prepared, monkeypatch):
    rows = prepared.test.rows
    whole = scored(base, rows)
    longest = max(len(row.ids) for row in rows)
    monkeypatch.setattr(likelihood, "_MOST_LOGITS", 2 * longest * 400)
    sizes = []
    real = likelihood._score_batch

    def counted(model, inputs, *rest):
        sizes.append(len(inputs["labels"]))
        return real(model, inputs, *rest)

    monkeypatch.setattr(likelihood, "_score_batch", counted)
    assert scored(base, rows).nll == pytest.approx(whole.nll, rel=1e-6)
    assert sum(sizes) == len(rows)
    assert max(sizes) <= 3
