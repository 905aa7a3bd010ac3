"""Which trials train together: decided from the study alone, kept, and kept to."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loratlas.study.packs import Pack, packs_of
from loratlas.study.records import TrialRecord
from loratlas.study.room import Room
from loratlas.study.store import FILE_NAME, Store


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / FILE_NAME, writable=True)
    yield opened
    opened.close()


def formed(store, wanted, fit=2, apart=(), most=None) -> list[Pack]:
    """Pack trials, of which those in `apart` cannot be packed."""
    reasons = {trial: "odd" if trial in apart else None for trial in wanted}
    room = Room(trials=fit, tokens_per_pass=64, prefix_bytes=0, most=most)
    return packs_of(store, wanted, reasons, room)


def shapes(packs: list[Pack]) -> list[tuple[int, str, str]]:
    return [(pack.number, pack.engine, "".join(pack.trials)) for pack in packs]


def end(store, digest: str, status: str = "done") -> None:
    record = TrialRecord(
        digest=digest, placement_digest="p", learning_rate=1.0, seed=0, status=status, engine="e"
    )
    store.add_trial(record, {}, {})


def test_what_can_be_packed_is_packed_in_order_and_the_rest_runs_alone(store):
    packs = formed(store, "abcde", fit=2, apart="b")
    assert shapes(packs) == [(1, "packed", "ac"), (2, "packed", "de"), (3, "reference", "b")]
    assert [pack.tokens_per_pass for pack in packs] == [64, 64, None]
    assert [pack.reason for pack in packs] == [None, None, "odd"]


@settings(max_examples=25, deadline=None)
@given(count=st.integers(0, 40), most=st.integers(1, 12))
def test_packs_are_as_few_as_possible_and_of_like_size(tmp_path_factory, count, most):
    store = Store(tmp_path_factory.mktemp("run") / FILE_NAME, writable=True)
    trials = [f"{number:02}" for number in range(count)]
    packs = formed(store, trials, most)
    store.close()
    sizes = [len(pack.trials) for pack in packs]
    assert [trial for pack in packs for trial in pack.trials] == trials
    assert len(packs) == -(-count // most)
    assert max(sizes, default=0) <= most
    assert max(sizes, default=0) - min(sizes, default=0) <= 1


def test_packs_are_kept_before_anything_runs_and_kept_to(store):
    first = formed(store, "abcde", fit=2)
    assert len(store.meta("packs")) == 3
    for ended in "ac":
        end(store, ended)
    # Other room, other order, fewer left: the same packs.
    assert formed(store, "edcba", fit=5) == first
    assert shapes(formed(store, "d", fit=1)) == [(3, "packed", "de")] == shapes(first[2:])


def test_only_trials_that_are_new_are_packed_anew(store):
    first = formed(store, "abc", fit=2)
    both = formed(store, "abcdef", fit=2)
    assert both[: len(first)] == first
    assert shapes(both[len(first) :]) == [(3, "packed", "d"), (4, "packed", "ef")]
    assert shapes(formed(store, "fe")) == [(4, "packed", "ef")]


def test_trials_of_a_study_that_is_left_to_pack_again_are_packed(store):
    """The study asked for the reference engine at first; what has ended stays what it was."""
    formed(store, "abcd", apart="abcd")
    end(store, "a")
    end(store, "b", "failed")
    assert shapes(formed(store, "abcd")) == [
        (1, "reference", "a"), (5, "packed", "b"), (6, "packed", "cd"),
    ]  # fmt: skip
    assert formed(store, "abcd") == formed(store, "abcd")


def test_trials_of_a_pack_that_can_no_longer_be_packed_run_alone(store):
    formed(store, "abcd", fit=4)
    end(store, "a")
    end(store, "b", "diverged")
    end(store, "c", "failed")
    packs = formed(store, "abcd", fit=4, apart="abcd")
    assert shapes(packs) == [(1, "packed", "ab"), (2, "reference", "c"), (3, "reference", "d")]
    assert packs[1].reason == "odd"


def test_a_failed_trial_keeps_its_pack(store):
    before = formed(store, "abc", fit=3)
    end(store, "b", "failed")
    assert formed(store, "abc", fit=1) == before


def test_a_trial_that_is_not_asked_for_now_keeps_its_pack(store):
    formed(store, "ab", fit=2)
    assert shapes(formed(store, "a", apart="a")) == [(2, "reference", "a")]
    assert shapes(formed(store, "b")) == [(1, "packed", "b")]


def test_a_person_may_allow_fewer_trials_together_than_before(store):
    """As after a pack that did not fit; what has ended, and packs that are small enough, stay."""
    formed(store, "abcdefg", fit=4)
    end(store, "a")
    end(store, "b", "failed")
    before = [(1, "packed", "abc"), (2, "packed", "defg")]
    assert shapes(formed(store, "abcdefg", fit=4, most=4)) == before
    assert shapes(formed(store, "abcdefg", fit=3, most=3)) == [
        (1, "packed", "abc"), (3, "packed", "de"), (4, "packed", "fg"),
    ]  # fmt: skip
    assert shapes(formed(store, "abcdefg", fit=2, most=2)) == [
        (1, "packed", "a"), (3, "packed", "de"), (4, "packed", "fg"), (5, "packed", "bc"),
    ]  # fmt: skip
