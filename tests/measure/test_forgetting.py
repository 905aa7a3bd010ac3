import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from loratlas.errors import DataError, NotYetError
from loratlas.measure.forgetting import prepare_forgetting
from loratlas.measure.measures import ForgettingMeasure


@pytest.fixture
def root(tmp_path):
    rows = [{"text": f"Ada number {i} lives in Oslo" + ", since 1950" * (i % 4)} for i in range(9)]
    rows.append(rows[0])
    (tmp_path / "text.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def measure(**options):
    return ForgettingMeasure(**{"source": "text.jsonl", "rows": 5, **options})


def test_every_token_but_the_first_is_scored(base, root):
    text = prepare_forgetting(measure(), base, root=root)
    assert text.num_questions == 5
    assert all(row.num_scored == len(row.ids) - 1 for row in text.rows)


def test_the_loss_is_what_plain_torch_says(base, root):
    text = prepare_forgetting(measure(), base, root=root)
    total = 0.0
    for row in text.rows:
        ids = torch.tensor(row.ids.astype("int64"))
        with torch.no_grad():
            logits = base.model(ids.unsqueeze(0)).logits[0].double()
        total += float(torch.nn.functional.cross_entropy(logits[:-1], ids[1:], reduction="sum"))
    found = text.take(base.model, base)
    # fp32 sums of a few hundred terms against float64.
    assert found.nll.sum() == pytest.approx(total, rel=1e-5)


def test_rows_are_drawn_once_and_for_all(base, root):
    first, again = (prepare_forgetting(measure(), base, root=root) for _ in range(2))
    assert first.digest == again.digest
    assert [row.row for row in first.rows] == sorted({row.row for row in first.rows})
    assert prepare_forgetting(measure(rows=4), base, root=root).digest != first.digest


def test_rows_end_where_the_model_ends(base, root):
    assert prepare_forgetting(measure(), base, root=root).num_truncated == 0
    cut = prepare_forgetting(measure(max_length=12), base, root=root)
    assert cut.num_truncated > 0
    assert max(len(row.ids) for row in cut.rows) == 12
    long = [{"text": "Oslo, Rome, Lima, " * 40}, {"text": "Oslo, since 1950"}]
    (root / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in long))
    ended = prepare_forgetting(measure(source="long.jsonl", rows=2), base, root=root)
    assert (max(len(row.ids) for row in ended.rows), ended.num_truncated) == (64, 1)


def test_the_bundled_text_is_new_and_about_people_who_are_known(base):
    from loratlas.data.demo.text import NUM_DOCUMENTS, documents
    from loratlas.data.demo.world import default_world

    text = prepare_forgetting(ForgettingMeasure(rows=50), base, root=Path())
    told = [base.tokenizer.decode(row.ids, skip_special_tokens=True) for row in text.rows]
    pretrained = set(documents(num_documents=NUM_DOCUMENTS // 20))
    assert np.mean([document in pretrained for document in told]) < 0.2
    assert not any(person.name in one for person in default_world().newcomers for one in told)
    assert any(person.name in one for person in default_world().known for one in told)


def test_too_few_rows_and_no_file(base, root):
    with pytest.raises(DataError) as caught:
        prepare_forgetting(measure(rows=10), base, root=root)
    assert str(caught.value) == (
        "measures: forgetting: text.jsonl: asked for 10 rows, and 9 of its 10 hold text and do "
        "not repeat another"
    )
    with pytest.raises(DataError, match=r"did you mean text.jsonl\?"):
        prepare_forgetting(measure(source="texts.jsonl"), base, root=root)


def test_other_kinds_of_model_are_refused(base, root):
    with pytest.raises(NotYetError, match="forgetting is measured on causal language models"):
        prepare_forgetting(measure(), replace(base, task="masked"), root=root)
