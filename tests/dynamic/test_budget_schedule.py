"""The cubic budget: PEFT's numbers, the budget in force, and schedules that cannot be."""

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.tuners.adalora.layer import RankAllocator

from loratlas.dynamic.schedule import Schedule
from loratlas.errors import PlacementError


def peft_budget(schedule: Schedule, step: int) -> tuple[int, bool]:
    config = SimpleNamespace(
        tinit=schedule.warmup,
        tfinal=schedule.final,
        total_step=schedule.total_steps,
        deltaT=schedule.interval,
    )
    allocator = SimpleNamespace(
        peft_config=config, init_bgt=schedule.start, target_bgt=schedule.end
    )
    return RankAllocator.budget_schedule(allocator, step)


@pytest.mark.parametrize(("warmup", "final"), [(0, 0), (7, 0), (0, 11), (20, 30)])
def test_the_cubic_is_pefts(warmup, final):
    schedule = Schedule(start=288, end=192, total_steps=97, warmup=warmup, final=final, interval=1)
    for step in range(1, 98):
        budget, decides = peft_budget(schedule, step)
        assert schedule.cubic(step) == schedule.budget(step) == budget
        # PEFT masks in the final phase too, always the same triplets.
        assert schedule.decides(step) == (decides and step <= schedule.last)


def test_the_budget_in_force_is_that_of_the_decision_before():
    schedule = Schedule(start=100, end=20, total_steps=20, warmup=4, final=4, interval=5)
    assert [step for step in range(1, 21) if schedule.decides(step)] == [6, 11, 16]
    # 20 + 80 (10/12)³ and 20 + 80 (5/12)³, rounded down.
    assert [schedule.budget(step) for step in (0, 5, 6, 10, 11, 15, 16, 20)] == (
        [100, 100, 66, 66, 25, 25, 20, 20]
    )
    assert [schedule.left(step) for step in (1, 10, 16, 20)] == [1.0, 0.5, 0.0, 0.0]


def test_an_interval_wider_than_the_window_leaves_the_last_decision():
    schedule = Schedule(start=100, end=20, total_steps=20, warmup=4, final=4, interval=50)
    assert [step for step in range(1, 21) if schedule.decides(step)] == [16]
    assert [schedule.budget(step) for step in (15, 16)] == [100, 20]


@settings(deadline=None)
@given(
    start=st.integers(0, 10**9),
    end=st.integers(0, 10**9),
    total_steps=st.integers(1, 200),
    data=st.data(),
)
def test_a_budget_goes_from_start_to_end_and_never_back(start, end, total_steps, data):
    final = data.draw(st.integers(0, total_steps - 1))
    warmup = data.draw(st.integers(0, total_steps - 1 - final))
    schedule = Schedule(
        start=start,
        end=end,
        total_steps=total_steps,
        warmup=warmup,
        final=final,
        interval=data.draw(st.integers(1, 250)),
    )
    budgets = [schedule.budget(step) for step in range(total_steps + 1)]
    assert budgets == sorted(budgets, reverse=start > end)
    assert budgets[: warmup + 1] == [start] * (warmup + 1)
    assert budgets[schedule.last :] == [end] * (final + 1)
    moved = [step for step in range(1, total_steps + 1) if budgets[step] != budgets[step - 1]]
    assert all(map(schedule.decides, moved))
    assert schedule.decides(schedule.last)


def planned(total_steps, **more):
    lengths = {"warmup": 0.1, "final": 0.5} | more
    return Schedule.planned(start=9, end=3, total_steps=total_steps, **lengths)


def test_lengths_are_shares_or_steps():
    shares = planned(200, warmup=0.25, final=0.3, interval=0.05)
    assert (shares.warmup, shares.final, shares.interval) == (50, 60, 10)
    steps = planned(200, warmup=1, final=7.0, interval=3)
    assert (steps.warmup, steps.final, steps.interval) == (1, 7, 3)
    assert planned(200).interval == 7
    assert planned(4000).interval == 100


@pytest.mark.parametrize("total_steps", range(1, 30))
def test_the_usual_schedule_fits_every_training(total_steps):
    assert planned(total_steps).decides(planned(total_steps).last)


def test_a_schedule_longer_than_the_training_is_refused():
    with pytest.raises(PlacementError) as error:
        planned(100, warmup=60, final=40)
    assert str(error.value) == (
        "the schedule is longer than the training: of 100 optimiser steps warmup takes 60 and "
        "final 40, which leaves none to decide in; together they are at most 99"
    )
    assert planned(100, warmup=60, final=39).last == 61
