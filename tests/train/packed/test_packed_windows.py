"""A packed trial reads the rows that Trainer reads, in the same steps and with the same masks."""

from itertools import islice

import pytest

from loratlas.train.packed.windows import windows
from loratlas.train.randomness import masks
from loratlas.train.reference_trainer import RowOrder
from loratlas.train.trial import TrainingSpec


def by_reference(num_rows, training, seed, epochs):
    """Row numbers of each optimiser step: windows of micro-batches, begun anew every epoch."""
    order, steps = RowOrder(seed, num_rows), []
    for epoch in range(epochs):
        order.set_epoch(epoch)
        visits = [visit % num_rows for visit in order]
        batches = [visits[i : i + training.batch] for i in range(0, num_rows, training.batch)]
        for i in range(0, len(batches), training.accumulation):
            steps.append([row for each in batches[i : i + training.accumulation] for row in each])
    return steps


@pytest.mark.parametrize("batch", [1, 3, 8, 40])
@pytest.mark.parametrize("accumulation", [1, 2, 5])
def test_steps_hold_the_reference_engines_rows(gpt2, batch, accumulation):
    training = TrainingSpec(batch=batch, accumulation=accumulation)
    wanted = by_reference(len(gpt2.rows), training, 3, epochs=3)
    found = islice(windows(gpt2.rows, training, seed=3, masking=None), len(wanted))
    assert [[id(row) for row in step] for step in found] == [
        [id(gpt2.rows[number]) for number in step] for step in wanted
    ]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("batch", [1, 3, 8, 40])
@pytest.mark.parametrize("first", [1, 2, 3, 7, 20])
def test_what_goes_on_reads_what_it_would_have_read(roberta, masked, batch, first):
    training = TrainingSpec(batch=batch, accumulation=2)
    masking = roberta.masking if masked else None

    def read(**more):
        reading = windows(roberta.rows, training, seed=3, masking=masking, **more)
        return [
            [(id(row.ids), None if row.masked is None else row.masked.tolist()) for row in step]
            for step in islice(reading, 25 - more.get("first", 0))
        ]

    assert read(first=first) == read()[first:]


def test_masks_are_drawn_anew_at_each_visit_and_for_each_seed(roberta):
    training = TrainingSpec(batch=len(roberta.rows))
    reading = windows(roberta.rows, training, seed=1, masking=roberta.masking)
    first, second = next(reading), next(reading)
    (other,) = islice(windows(roberta.rows, training, seed=2, masking=roberta.masking), 1)

    def masked(rows):
        return {row.row: row.masked.tolist() for row in rows}

    assert masked(first) != masked(second)
    assert masked(first) != masked(other)
    (again,) = islice(windows(roberta.rows, training, seed=1, masking=roberta.masking), 1)
    assert masked(first) == masked(again)
    for row in first:
        index = [each.row for each in roberta.rows].index(row.row)
        wanted = roberta.masking.corrupt(roberta.rows[index], masks(1, 0, index))
        assert row.masked.tolist() == wanted.masked.tolist()
        assert row.scored.tolist() == wanted.scored.tolist()
