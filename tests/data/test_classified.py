import pytest

from loratlas.data.classified import class_names, tokenize_classified
from loratlas.data.files import Row
from loratlas.data.formats import read_examples
from loratlas.errors import DataError


def rows(*values):
    given = [Row(values=value, where=f"x:{n}", index=n) for n, value in enumerate(values, start=1)]
    return read_examples(given, data_format="classification", loss_on="response")


def labelled(*labels):
    return rows(*({"text": f"text {n}", "label": label} for n, label in enumerate(labels))).examples


def test_classes_are_sorted_and_numbers_as_numbers():
    assert class_names({"train": labelled("good", "bad", "good")}) == ("bad", "good")
    assert class_names({"train": labelled(10, 9, 0)}) == ("0", "9", "10")


def test_one_text_or_a_pair(tokenizer):
    found = rows({"text": "the sky", "label": 1}, {"text": "a", "text_pair": "b", "label": 0})
    one, two = tokenize_classified(found.examples, tokenizer, ("0", "1"), max_length=20).rows
    assert one.ids.tolist() == tokenizer("the sky").input_ids
    assert two.ids.tolist() == tokenizer("a", "b").input_ids
    assert (one.label, two.label) == (1, 0)
    assert one.num_scored == two.num_scored == 1


def test_cut_rows_are_counted(tokenizer):
    found = tokenize_classified(labelled("x", "y"), tokenizer, ("x", "y"), max_length=2)
    assert found.num_truncated == 2
    assert {len(row.ids) for row in found.rows} == {2}


def test_a_row_without_text_is_left_out():
    assert rows({"text": " ", "label": 1}, {"text": "a", "label": 1}).num_unanswered == 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"text": "a"}, 'x:1: no key "label"'),
        ({"text": "a", "label": 0.5}, '"label" must be a text or a whole number'),
        ({"text": "a", "label": True}, '"label" must be a text or a whole number'),
        ({"text": "a", "label": None}, '"label" must be a text or a whole number'),
        ({"label": 1}, 'x:1: no key "text"'),
    ],
)
def test_faults_of_a_row(value, message):
    with pytest.raises(DataError, match=message):
        rows(value)


def test_one_class_or_an_unknown_one():
    with pytest.raises(DataError, match="at least two classes in train, found only a"):
        class_names({"train": labelled("a", "a")})
    with pytest.raises(DataError, match=r"x:2: class c of test .* whose classes are a, b"):
        class_names({"train": labelled("a", "b"), "test": labelled("a", "c")})
