"""Rows flat and rows filled up: the same predictions at the places where the model makes them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from packed_cases import CPU

from loratlas.data.rows import frozen_ids
from loratlas.train.packed.batch import Flat, Whole

FAMILIES = ["gpt2", "roberta", "t5"]


@pytest.fixture(params=FAMILIES)
def case(request):
    return request.getfixturevalue(request.param)


def layouts(case):
    whole = Whole(collator=case.base.collator, device=CPU)
    if case.base.task == "seq2seq":
        return [whole]
    return [case.flat().layout, whole]


def rows_of(case):
    if case.masking is None:
        return case.rows[:5]
    return [case.masking.corrupt(row, np.random.default_rng(row.row)) for row in case.rows[:5]]


def test_targets_are_what_the_reference_engine_scores(case):
    """At each place the logits that Trainer's loss reads, and the label it reads them for."""
    rows = rows_of(case)
    batch = case.base.collator(rows)
    labels = batch["labels"]
    ids = batch.get("decoder_input_ids", batch["input_ids"])
    shift = 1 if case.base.task == "causal" else 0
    for layout in layouts(case):
        targets = layout.targets(rows)
        scored = (labels[:, shift:] != -100).nonzero()
        assert targets.row.tolist() == scored[:, 0].tolist()
        assert targets.wanted.tolist() == [int(labels[row, at + shift]) for row, at in scored]
        given = layout.inputs(rows)
        read = given.get("decoder_input_ids", given["input_ids"]).flatten()
        assert read[targets.place].tolist() == [int(ids[row, at]) for row, at in scored]


def test_a_first_token_is_never_predicted_from_the_row_before(gpt2):
    targets = gpt2.flat().layout.targets(gpt2.rows[:5])
    starts = np.cumsum([0, *(len(row.ids) for row in gpt2.rows[:5])])
    for row in range(5):
        own = targets.place[targets.row == row]
        assert starts[row] <= int(own.min())
        assert int(own.max()) < starts[row + 1] - 1


def test_flat_rows_begin_anew(gpt2):
    rows = gpt2.rows[:3]
    inputs = gpt2.flat().layout.inputs(rows)
    assert set(inputs) == {"input_ids", "position_ids", "row_bounds"}
    lengths = [len(row.ids) for row in rows]
    assert inputs["row_bounds"] == (0, *np.cumsum(lengths).tolist())
    assert inputs["position_ids"].tolist() == [[at for n in lengths for at in range(n)]]
    assert inputs["input_ids"].shape == (1, sum(lengths))
    layout = gpt2.flat().layout
    assert [layout.units(row) for row in rows] == lengths
    assert not layout.fills_up


def test_a_masked_row_is_read_with_its_masks(roberta):
    (row, *_) = rows_of(roberta)
    for layout in layouts(roberta):
        inputs = layout.inputs([row])
        assert inputs["input_ids"].tolist() == [row.masked.tolist()]
        assert layout.targets([row]).wanted.tolist() == row.ids[row.scored].tolist()


@pytest.mark.parametrize("places", [[], [3], [0], [2, 3, 7]])
def test_roberta_counts_positions_as_its_own_code_does(roberta, places):
    """The token that stands for padding is passed over, also where chance put it into a row."""
    model = roberta.base.model
    padding = model.roberta.embeddings.padding_idx
    ids = roberta.rows[0].ids.copy()
    ids[ids == padding] = padding + 1
    ids[places] = padding
    row = replace(roberta.rows[0], masked=frozen_ids(ids))
    inputs = roberta.flat().layout.inputs([row])
    with torch.no_grad():
        wanted = model(input_ids=inputs["input_ids"], attention_mask=torch.ones(1, len(ids))).logits
        found = model(
            input_ids=inputs["input_ids"],
            position_ids=inputs["position_ids"],
            attention_mask=torch.ones(1, len(ids)),
        ).logits
    assert torch.equal(found, wanted)


def test_rows_are_filled_up_as_the_collator_fills_them(case):
    rows = rows_of(case)
    layout = Whole(collator=case.base.collator, device=CPU)
    wanted = case.base.collator(rows)
    inputs = layout.inputs(rows)
    assert set(inputs) == set(wanted) - {"labels"}
    assert all(torch.equal(inputs[name], wanted[name]) for name in inputs)
    assert [layout.units(row) for row in rows] == [1] * 5
    assert layout.fills_up


def test_a_causal_row_that_fills_the_batch_predicts_nothing_at_its_end(gpt2):
    longest = max(gpt2.rows, key=lambda row: len(row.ids))
    layout = Whole(collator=gpt2.base.collator, device=CPU)
    assert len(layout.targets([longest]).place) == longest.num_scored
    assert int(layout.targets([longest]).place.max()) == len(longest.ids) - 2


def test_positions_start_at_zero_by_default(gpt2):
    layout = Flat(task="causal", device=CPU)
    assert layout.inputs(gpt2.rows[:1])["position_ids"][0, 0] == 0
