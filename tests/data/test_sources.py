import datasets
import pytest

from loratlas.data.sources import read_source
from loratlas.data.spec import DataSpec
from loratlas.errors import DataError

ROWS = [{"prompt": "p1", "completion": "c1"}, {"prompt": "p2", "completion": "c2"}]


def spec(**changes):
    return DataSpec(**({"format": "prompt_completion"} | changes))


@pytest.fixture
def hub(monkeypatch):
    """Stand in for the network: whatever name is asked for gives what the test sets."""
    asked = []

    def answer_with(result):
        def load_dataset(*names, **options):
            asked.append((names, options))
            if isinstance(result, Exception):
                raise result
            return result

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return asked

    return answer_with


def test_one_file_is_the_split_train(tmp_path, write_rows):
    source = read_source(spec(source=write_rows("d.jsonl", ROWS)), root=tmp_path)
    assert list(source.splits) == ["train"]
    assert [row.values for row in source.splits["train"]] == ROWS
    assert source.names["train"] == "d.jsonl"


def test_files_by_split(tmp_path, write_rows):
    files = {"test": write_rows("b.jsonl", ROWS[:1]), "train": write_rows("a.jsonl", ROWS)}
    source = read_source(spec(files=files), root=tmp_path)
    assert {split: len(rows) for split, rows in source.splits.items()} == {"train": 2, "test": 1}


def test_paths_start_at_the_root_or_are_absolute(tmp_path, write_rows):
    (tmp_path / "sub").mkdir()
    write_rows("sub/d.jsonl", ROWS)
    for given in ("sub/d.jsonl", "./sub/d.jsonl", str(tmp_path / "sub" / "d.jsonl")):
        assert len(read_source(spec(source=given), root=tmp_path).splits["train"]) == 2


def test_wrong_split_names(tmp_path, write_rows):
    name = write_rows("d.jsonl", ROWS)
    with pytest.raises(DataError) as caught:
        read_source(spec(files={"train": name, "valdation": name}), root=tmp_path)
    assert str(caught.value) == (
        "data: no split is named valdation (did you mean validation?); "
        "files may be given for train, validation, test"
    )
    with pytest.raises(DataError, match="the files by split lack train"):
        read_source(spec(files={"test": name}), root=tmp_path)


def test_source_and_files_exclude_each_other(tmp_path):
    for given in (spec(), spec(source="x.jsonl", files={"train": "x.jsonl"})):
        with pytest.raises(DataError, match="exactly one of a source and files"):
            read_source(given, root=tmp_path)


@pytest.mark.parametrize("name", ["missing.jsonl", "a/b/c", "../x", "data.txt", "é", "a" * 300])
def test_what_cannot_be_a_hub_name_never_reaches_the_network(tmp_path, hub, name):
    asked = hub(AssertionError("the hub was asked"))
    with pytest.raises(DataError):
        read_source(spec(source=name), root=tmp_path)
    assert asked == []


def test_a_missing_test_file_is_said_before_train_is_read(tmp_path, write_rows):
    (tmp_path / "train.jsonl").write_text("not JSON")
    with pytest.raises(DataError, match=r"test.jsonl: no such file"):
        read_source(spec(files={"train": "train.jsonl", "test": "test.jsonl"}), root=tmp_path)


def test_hub_set_with_its_own_splits(tmp_path, hub):
    split = datasets.Dataset.from_list(ROWS)
    asked = hub(datasets.DatasetDict({"train": split, "test": split.select([1]), "dev": split}))
    source = read_source(spec(source="openai/gsm8k", config="main", revision="abc"), root=tmp_path)
    assert asked == [(("openai/gsm8k", "main"), {"revision": "abc"})]
    assert [dict(row.values) for row in source.splits["test"]] == ROWS[1:]
    assert source.splits["train"][1].where == "openai/gsm8k[train] row 2"
    assert source.unused == ("dev",)


def test_hub_set_without_train(tmp_path, hub):
    hub(datasets.DatasetDict({"train_sft": datasets.Dataset.from_list(ROWS)}))
    with pytest.raises(DataError, match=r"org/x: has no split named train; it has train_sft"):
        read_source(spec(source="org/x"), root=tmp_path)


def test_no_network_is_one_plain_message(tmp_path, hub, write_rows):
    write_rows("alpaca", ROWS)
    hub(ConnectionError("Couldn't reach the hub\nwith a long trace"))
    with pytest.raises(DataError) as caught:
        read_source(spec(source="alpacca"), root=tmp_path)
    assert str(caught.value) == (
        f"alpacca: neither a file in {tmp_path} (did you mean alpaca?) nor a data set that the hub "
        "gave: Couldn't reach the hub"
    )


@pytest.mark.parametrize("task", ["facts", "format"])
def test_bundled_tasks_have_three_splits(tmp_path, task):
    source = read_source(spec(source=f"demo:{task}"), root=tmp_path)
    assert list(source.splits) == ["train", "validation", "test"]
    assert source.splits["test"][0].where == f"demo:{task}[test] row 1"
    assert set(source.splits["train"][0].values) >= {"prompt", "completion"}


def test_unknown_bundled_task(tmp_path):
    with pytest.raises(DataError, match=r"fact: no such bundled task \(did you mean facts\?\)"):
        read_source(spec(source="demo:fact"), root=tmp_path)
