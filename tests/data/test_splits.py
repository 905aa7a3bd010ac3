import pytest
from hypothesis import given
from hypothesis import strategies as st

from loratlas.data.formats import Example, Examples, Segment
from loratlas.data.spec import DataSpec
from loratlas.data.splits import draw_splits
from loratlas.errors import DataError

NAMES = {"train": "train.jsonl", "validation": "val.jsonl", "test": "test.jsonl"}


def rows(*texts):
    examples = tuple(
        Example(row=number, where=f"x:{number}", segments=(Segment(text=str(text), scored=True),))
        for number, text in enumerate(texts)
    )
    return Examples(examples=examples, num_rows=len(examples), num_unanswered=0)


def draw(splits, **sizes):
    usable = {
        name: found if isinstance(found, Examples) else rows(*found)
        for name, found in splits.items()
    }
    return draw_splits(usable, DataSpec(format="text", **sizes), names=NAMES)


def texts(split):
    return [example.segments[0].text for example in split.examples]


def refusal(splits, **sizes):
    with pytest.raises(DataError) as caught:
        draw(splits, **sizes)
    return str(caught.value)


@given(
    pool=st.lists(st.integers(0, 40), min_size=1, max_size=60),
    validation=st.integers(0, 5),
    test=st.integers(0, 5),
    seed=st.integers(0, 3),
)
def test_one_source_never_puts_a_text_in_two_splits(pool, validation, test, seed):
    sizes = {"validation": validation, "test": test, "split_seed": seed}
    distinct = len(set(pool))
    if distinct < validation + test + 1:
        assert "too few rows" in refusal({"train": pool}, **sizes)
        return
    drawn = draw({"train": pool}, **sizes)
    found = [text for split in drawn.values() for text in set(texts(split))]
    assert len(found) == len(set(found)) == distinct
    assert len(drawn["validation"].examples) == validation
    assert len(drawn["test"].examples) == test
    assert drawn["train"].num_duplicates == len(pool) - distinct


def test_a_larger_train_changes_no_other_split_and_contains_the_smaller():
    pool = {"train": range(100)}
    small = draw(pool, train=10, validation=5, test=5)
    large = draw(pool, train=50, validation=5, test=5)
    assert small["test"] == large["test"]
    assert small["validation"] == large["validation"]
    assert set(texts(small["train"])) < set(texts(large["train"]))


def test_the_draw_depends_on_the_seed_alone():
    pool = {"train": range(100)}
    first = draw(pool, train=10, test=5, split_seed=1)
    assert first == draw(pool, train=10, test=5, split_seed=1)
    assert first != draw(pool, train=10, test=5, split_seed=2)
    assert [example.row for example in first["train"].examples] == sorted(
        example.row for example in first["train"].examples
    )


def test_own_splits_are_used_and_validation_is_drawn_from_train():
    drawn = draw({"train": range(10), "test": range(100, 105)}, validation=3)
    assert len(drawn["train"].examples) == 7
    assert len(drawn["validation"].examples) == 3
    assert set(texts(drawn["train"])) | set(texts(drawn["validation"])) == set(map(str, range(10)))
    assert texts(drawn["test"]) == ["100", "101", "102", "103", "104"]


def test_without_sizes_own_splits_are_taken_whole():
    drawn = draw({"train": [1, 1, 2], "validation": [3], "test": [4, 4]})
    assert [texts(drawn[split]) for split in NAMES] == [["1", "1", "2"], ["3"], ["4", "4"]]
    assert drawn["train"].num_duplicates == 1
    assert not drawn["train"].duplicates_dropped
    assert draw({"train": [1], "test": [2]})["validation"].examples == ()


def test_train_test_overlap_is_dropped_from_train():
    drawn = draw({"train": [1, 2, 3, 4, 5], "validation": [2, 3, 6], "test": [3, 4, 7]}, test=1)
    assert texts(drawn["train"]) == ["1", "5"]
    assert texts(drawn["validation"]) == ["2", "6"]
    assert drawn["train"].num_overlaps == 3
    assert drawn["validation"].num_overlaps == 1
    assert drawn["test"].num_overlaps == 0


def test_size_zero_leaves_a_split_empty():
    drawn = draw({"train": [1, 2, 3], "validation": [2], "test": [3]}, validation=0)
    assert drawn["validation"].examples == ()
    assert texts(drawn["train"]) == ["1", "2"]


def test_a_missing_test_split_needs_a_size():
    assert refusal({"train": [1, 2]}) == (
        "data.test: train.jsonl has no test split; say how many rows to draw"
    )


def test_too_few_rows_says_how_many_there_are():
    pool = Examples(examples=rows(1, 1, 2, 3).examples, num_rows=6, num_unanswered=2)
    assert refusal({"train": pool}, train=2, validation=1, test=1) == (
        "train.jsonl: too few rows: usable 3 (6 less 2 without an answer, 1 repeated), "
        "asked for 1 test + 1 validation + 2 train = 4"
    )
    assert refusal({"train": [1, 2], "test": [2]}, train=2) == (
        "train.jsonl: too few rows: usable 1 (2 less 1 also in test or validation), "
        "asked for 2 train"
    )
    assert "asked for 3 test" in refusal({"train": [1], "test": [2]}, test=3)
    assert "at least 1 train" in refusal({"train": [1], "test": [1]})


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"train": 0}, "data.train: 0 rows cannot be drawn; at least 1"),
        ({"test": -1}, "data.test: -1 rows cannot be drawn; at least 0"),
        ({"split_seed": -1}, "data.split_seed: -1 is negative; a seed is 0 or more"),
    ],
)
def test_sizes_that_cannot_be(sizes, message):
    assert refusal({"train": [1, 2], "test": [3]}, **sizes) == message
