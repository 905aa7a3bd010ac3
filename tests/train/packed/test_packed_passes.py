"""How a step is cut into passes, and what running out of memory does to it: nothing is lost."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from packed_cases import TRAINING, Trial

from loratlas.data.rows import TokenizedRow, frozen_ids, frozen_marks
from loratlas.train.packed.flow import Flow, Unit
from loratlas.train.packed.passes import Passes

TRIALS = [
    Trial(rule="all", seed=0),
    Trial(rule="attention", seed=1, rate=3e-3),
    Trial(rule="all @ layers(2)", seed=2),
]


def row(length):
    return TokenizedRow(
        row=0, ids=frozen_ids(range(length)), scored=frozen_marks([True] * length), num_bytes=0
    )


def units_of(lengths):
    return [Unit(slot, [row(each) for each in rows]) for slot, rows in enumerate(lengths)]


def tokens(units):
    return sum(row.num_read for unit in units for row in unit.rows)


LENGTHS = st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=6), min_size=1, max_size=5)


@given(lengths=LENGTHS, limit=st.integers(1, 200))
def test_passes_hold_every_row_once_in_order_and_keep_to_the_limit(lengths, limit):
    units = units_of(lengths)
    passes = list(Passes(limit).cut(units))
    found = [(unit.slot, id(row)) for each in passes for unit in each for row in unit.rows]
    wanted = [(unit.slot, id(row)) for unit in units for row in unit.rows]
    assert found == wanted
    for each in passes:
        assert len({unit.slot for unit in each}) == len(each)
        assert tokens(each) <= limit or sum(len(unit.rows) for unit in each) == 1


@given(lengths=LENGTHS, limit=st.integers(1, 200))
def test_how_a_window_is_divided_depends_on_itself_alone(lengths, limit):
    units = units_of(lengths)
    together = [unit for each in Passes(limit).cut(units) for unit in each]
    for unit in units:
        alone = [part for each in Passes(limit).cut([unit]) for part in each]
        parts = [part for part in together if part.slot == unit.slot]
        assert [len(part.rows) for part in parts] == [len(part.rows) for part in alone]
        if tokens([unit]) <= limit:
            assert len(parts) == 1


@given(lengths=LENGTHS, limit=st.integers(1, 200))
def test_halving_ends_at_single_rows(lengths, limit):
    units, passes = units_of(lengths), Passes(limit)
    limits = [limit]
    while passes.halve(units):
        limits.append(passes.limit)
    assert limits == sorted(set(limits), reverse=True)
    assert passes.num_halved == len(limits) - 1
    assert all(sum(len(unit.rows) for unit in each) == 1 for each in passes.cut(units))


def test_a_long_row_alone_does_not_keep_the_others_from_being_halved():
    units = units_of([[40], [10, 10]])
    passes = Passes(20)
    assert [tokens(each) for each in passes.cut(units)] == [40, 20]
    assert passes.halve(units)
    assert [tokens(each) for each in passes.cut(units)] == [40, 10, 10]
    assert not passes.halve(units)


class Memory:
    """A machine on which passes of more than some tokens fail, halfway or at once."""

    def __init__(self, monkeypatch, most, error, *, late=False):
        self.most, self.error, self.late = most, error, late
        self.num_failed = 0
        self.largest = 0
        self._passed = Flow.passed
        monkeypatch.setattr(Flow, "passed", lambda flow, *args, **more: self(flow, *args, **more))

    def __call__(self, flow, units, **more):
        units = list(units)
        if tokens(units) <= self.most:
            self.largest = max(self.largest, tokens(units))
            return self._passed(flow, units, **more)
        self.num_failed += 1
        if self.late:
            passed = self._passed(flow, units, **more)
            torch.autograd.backward(passed.hidden, torch.ones_like(passed.hidden))
        raise self.error


@pytest.fixture(scope="module")
def in_plenty(gpt2):
    return gpt2.packed(TRIALS)


OUT_OF_MEMORY = {
    "as on a GPU": torch.OutOfMemoryError("CUDA out of memory."),
    "as on a CPU": RuntimeError("DefaultCPUAllocator: can't allocate memory"),
}


@pytest.mark.parametrize("error", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
@pytest.mark.parametrize("late", [False, True])
def test_passes_become_smaller_and_the_trials_stay_what_they_are(
    gpt2, in_plenty, monkeypatch, error, late, caplog
):
    """Where windows are still whole, a step is only cut between trials."""
    memory = Memory(monkeypatch, 200, error, late=late)
    passes = Passes(10**6)
    found = gpt2.packed(TRIALS, passes=passes)
    assert memory.num_failed == passes.num_halved == 1
    assert passes.limit <= memory.largest * 2
    assert f"out of memory; passes of at most {passes.limit} tokens from now on" in caplog.text
    for one, other in zip(found, in_plenty, strict=True):
        assert len(one.losses) == 6
        # the frozen products of a pass have other rows beside them
        assert one.distance(other) <= 1e-5
        assert one.loss_distance(other) <= 1e-5


def test_at_single_rows_the_same_steps_are_still_done(gpt2, in_plenty, monkeypatch):
    longest = max(row.num_read for row in gpt2.rows)
    memory = Memory(monkeypatch, longest, OUT_OF_MEMORY["as on a GPU"])
    passes = Passes(10**6)
    found = gpt2.packed(TRIALS, passes=passes)
    assert memory.largest <= longest
    assert passes.num_halved > 2
    for one, other in zip(found, in_plenty, strict=True):
        assert one.distance(other) <= 1e-5
        assert one.loss_distance(other) <= 1e-5


def test_what_does_not_fit_row_by_row_is_an_error(gpt2, monkeypatch):
    Memory(monkeypatch, 8, OUT_OF_MEMORY["as on a GPU"])
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        gpt2.packed(TRIALS)


def test_another_error_is_not_tried_again(gpt2, monkeypatch):
    memory = Memory(monkeypatch, 200, RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        gpt2.packed(TRIALS)
    assert memory.num_failed == 1


@pytest.mark.parametrize("limit", [250, 90, 1])
def test_the_limit_that_is_given_does_not_change_a_trial(gpt2, in_plenty, limit):
    found = gpt2.packed(TRIALS, passes=Passes(limit))
    for one, other in zip(found, in_plenty, strict=True):
        assert one.distance(other) <= 1e-5
        assert one.loss_distance(other) <= 1e-5


def test_the_limit_does_not_change_which_rows_a_step_reads(gpt2):
    """The last window of 5 rows is short in both; fewer rows would be another loss."""
    training = replace(TRAINING, epochs=1)
    whole = gpt2.packed(TRIALS[:1], training=training)
    divided = gpt2.packed(TRIALS[:1], training=training, passes=Passes(1))
    assert len(whole[0].losses) == 3
    assert whole[0].losses == pytest.approx(divided[0].losses, abs=1e-5)
