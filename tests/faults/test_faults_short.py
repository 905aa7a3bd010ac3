"""Does a run survive a few kills and the faults that take a moment? The rest is `make faults`."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))  # the faults are shared with the tool

from faults.kills import Way, killed_runs
from faults.numbers import differences, numbers
from faults.outside import reads_of_the_clock
from faults.page import counts, page
from faults.scene import Outcome, play
from faults.table import FAULTS
from faults.world import RUN, World

NUM_KILLS = 2
IN_A_MOMENT = {"a worker reports after its trial was given to another", "who reads the wall clock"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world"))


def test_killed_at_drawn_moments_a_run_comes_to_the_same_numbers(world):
    ways = [Way(study="brief", options=("--prefix-memory", "0", "--prefix-file", "64MB"))]
    runs = list(killed_runs(world, "short-33", NUM_KILLS, ways))
    assert [run.wrong for run in runs] == [[] for _ in runs]
    assert counts(runs, []) == (NUM_KILLS, NUM_KILLS)
    assert all(run.num_compared > 1000 for run in runs)


def test_the_comparison_sees_one_bit(world):
    undisturbed = world.undisturbed("brief")
    wanted = undisturbed.numbers
    assert not differences(wanted, numbers(undisturbed.folder / RUN))
    place = next(place for place in wanted if "/losses/" in place)
    changed = {**wanted, place: repr(float(wanted[place]) * (1 + 2**-52))}
    assert len(differences(wanted, changed)) == 1
    assert not differences(wanted, changed, tolerance=1e-9)
    adapter = next(place for place in wanted if place.endswith(".safetensors"))
    assert len(differences(wanted, {**wanted, adapter: "0"})) == 1
    assert {"attempts", "seconds"}.isdisjoint(place.rpartition("/")[2] for place in wanted)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(
            fault,
            id=fault.name,
            marks=() if fault.name in IN_A_MOMENT else pytest.mark.slow,
        )
        for fault in FAULTS
        if not fault.needs_mounts
    ],
)
def test_a_fault_holds(fault, world):
    outcome = play(fault, world)
    assert not outcome.wrong, (outcome.said, outcome.wrong)
    assert outcome.said


def test_the_clock_is_found_where_it_is_read():
    assert "study/store.py" in reads_of_the_clock()
    assert "train/checkpoint.py" not in reads_of_the_clock()


def test_the_page_tells_what_held():
    outcomes = [
        Outcome(name="a | b", said="loratlas: x", checked=["exit 1"]),
        Outcome(name="c", said="", wrong=["exit 0"]),
    ]
    text = page([], outcomes, seed="0")
    assert "**2 tried, 1 held.**" in text
    assert "`loratlas: x`" in text
    assert "NO: exit 0" in text
