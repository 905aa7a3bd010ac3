"""The one scorer on models that are not causal, held against plain torch and against Trainer."""

import json
import math

import numpy as np
import pytest
import torch
from transformers import Trainer, TrainingArguments

import families
from loratlas.data.batches import prepare
from loratlas.data.spec import DataSpec
from loratlas.measure.likelihood import score
from loratlas.train.base import load_base
from loratlas.train.trial import ModelRef

CPU = torch.device("cpu")
# fp32 logits of the same model in other batches, against float64 sums of them
CLOSE = 1e-6


def loaded(family, folder, **ref):
    families.write(family, folder)
    return load_base(ModelRef(name=str(folder), **ref), dtype="fp32", base_dropout=0.0, device=CPU)


def prepared(base, folder, data_format="prompt_completion"):
    (folder / "rows.jsonl").write_text(families.prompt_rows(40))
    spec = DataSpec(
        source="rows.jsonl", format=data_format, train=16, validation=4, test=12, max_length=40
    )
    return prepare(spec, base.tokenizer, root=folder, task=base.task)


@pytest.fixture(scope="module", params=["llama", "bert", "roberta", "t5", "bart"])
def case(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    base = loaded(request.param, folder)
    return base, prepared(base, folder).test.rows


def scored(base, rows, **changes):
    return score(base.model, rows, collator=base.collator, device=CPU, **changes)


def by_hand(base, row):
    """Σ -ln p of one row, alone in its batch, in float64; how a label stands is written out."""
    with torch.no_grad():
        if base.task == "masked":
            logits = base.model(torch.tensor([row.masked.tolist()])).logits[0]
            places = [(at, at) for at in range(len(row.ids)) if row.scored[at]]
        elif base.task == "seq2seq":
            start = base.model.config.decoder_start_token_id
            logits = base.model(
                input_ids=torch.tensor([row.source.tolist()]),
                decoder_input_ids=torch.tensor([[start, *row.ids.tolist()[:-1]]]),
            ).logits[0]
            places = [(at, at) for at in range(len(row.ids)) if row.scored[at]]
        else:
            logits = base.model(torch.tensor([row.ids.tolist()])).logits[0]
            places = [(at - 1, at) for at in range(1, len(row.ids)) if row.scored[at]]
    chances = torch.softmax(logits.double(), dim=-1)
    return -sum(math.log(chances[at, int(row.ids[target])]) for at, target in places)


def test_each_row_is_what_plain_torch_says(case):
    base, rows = case
    expected = [by_hand(base, row) for row in rows]
    # fp32 logits of a row alone and among others: a few 1e-7 a token
    assert scored(base, rows).nll.tolist() == pytest.approx(expected, rel=1e-5)


def test_it_does_not_depend_on_batch_size_or_order(case):
    base, rows = case
    whole = scored(base, rows, batch=len(rows))
    for batch in (1, 5):
        assert scored(base, rows, batch=batch).nll == pytest.approx(whole.nll, rel=CLOSE)
    assert scored(base, rows[::-1], batch=5).nll[::-1] == pytest.approx(whole.nll, rel=CLOSE)


def test_the_loss_is_trainers_with_one_row_a_batch(case, tmp_path):
    base, rows = case
    args = TrainingArguments(
        output_dir=str(tmp_path), per_device_eval_batch_size=1, report_to="none", use_cpu=True,
        remove_unused_columns=False, disable_tqdm=True, label_names=["labels"],
    )  # fmt: skip
    trainer = Trainer(
        model=base.model, args=args, eval_dataset=[rows[0]], data_collator=base.collator
    )
    assert scored(base, rows[:1]).loss == pytest.approx(trainer.evaluate()["eval_loss"], rel=CLOSE)


def test_counts_are_of_what_is_scored(case):
    base, rows = case
    found = scored(base, rows)
    assert found.num_tokens.tolist() == [int(row.scored.sum()) for row in rows]
    assert (found.num_correct <= found.num_tokens).all()
    assert found.bits_per_byte == pytest.approx(
        found.nll.sum() / math.log(2) / sum(row.num_bytes for row in rows)
    )
    assert found.macro_f1 is None


CLASSES = ("bad", "good", "so-so")


@pytest.fixture(scope="module", params=["bert", "roberta", "gpt2"])
def classifier(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    base = loaded(request.param, folder, num_labels=3)
    lines = [
        {"text": f"House {n} is number {n * n}.", "text_pair": "Oslo?" * (n % 3), "label": label}
        for n, label in ((n, CLASSES[n % 3]) for n in range(40))
    ]
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in lines))
    spec = DataSpec(source="rows.jsonl", format="classification", train=20, test=15, max_length=40)
    return base, prepare(spec, base.tokenizer, root=folder, task="classification")


def test_a_class_is_scored_once_a_row(classifier):
    base, data = classifier
    rows = data.test.rows
    assert data.classes == CLASSES
    found = scored(base, rows, batch=4)
    expected = []
    with torch.no_grad():
        for row in rows:
            inputs = {"input_ids": torch.tensor([row.ids.tolist()])}
            if row.types is not None:
                inputs["token_type_ids"] = torch.tensor([row.types.tolist()])
            expected.append(torch.softmax(base.model(**inputs).logits[0].double(), dim=-1))
    assert found.nll == pytest.approx(
        [-math.log(p[row.label]) for p, row in zip(expected, rows, strict=True)], rel=1e-5
    )
    assert found.predicted.tolist() == [int(p.argmax()) for p in expected]
    assert found.num_tokens.tolist() == [1] * len(rows)
    assert found.perplexity is None
    assert found.bits_per_byte is None


def test_accuracy_and_f1_are_scikit_learns(classifier):
    metrics = pytest.importorskip("sklearn.metrics")
    base, data = classifier
    found = scored(base, data.test.rows)
    assert found.accuracy == pytest.approx(metrics.accuracy_score(found.label, found.predicted))
    assert found.macro_f1 == pytest.approx(
        metrics.f1_score(found.label, found.predicted, average="macro", zero_division=0)
    )


def test_the_new_head_is_the_same_each_time(classifier, tmp_path):
    base, _ = classifier
    again = load_base(base.ref, dtype="fp32", base_dropout=0.0, device=CPU)
    assert again.digest == base.digest
    assert again.head == base.head
    assert all(np.isfinite(p.detach().numpy()).all() for p in again.model.parameters())
