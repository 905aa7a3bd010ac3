import json

import pyarrow
import pyarrow.parquet
import pytest

from loratlas.data.files import describe, read_file
from loratlas.errors import DataError


def refusal(name, content, root):
    (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        read_file(name, root=root)
    return str(caught.value)


def test_the_same_rows_come_from_every_kind_of_file(tmp_path):
    rows = [{"a": 'one, "two"\nthree', "b": "é\u2028"}, {"a": "4", "b": ""}]
    (tmp_path / "d.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "e.jsonl").write_text(
        "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8-sig"
    )
    (tmp_path / "d.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "d.csv").write_bytes('a,b\r\n"one, ""two""\nthree",é\u2028\r\n\r\n4,\r\n'.encode())
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "d.parquet")
    for name in ("d.jsonl", "e.jsonl", "d.json", "d.csv", "d.parquet"):
        found = read_file(name, root=tmp_path)
        assert [dict(row.values) for row in found] == rows, name
        assert [row.index for row in found] == [0, 1]


def test_rows_are_found_by_the_line_they_start_on(tmp_path):
    (tmp_path / "d.jsonl").write_text('\n{"a": 1}\n\n{"a": 2}')
    (tmp_path / "d.json").write_text('[\n  {\n"a": 1},\n\n  {"a": 2}\n]\n')
    (tmp_path / "d.csv").write_text('a\n"1\n\n2"\n3\n')
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"a": 1}]), tmp_path / "d.parquet")

    def places(name):
        return [row.where for row in read_file(name, root=tmp_path)]

    assert places("d.jsonl") == ["d.jsonl:2", "d.jsonl:4"]
    assert places("d.json") == ["d.json:2", "d.json:5"]
    assert places("d.csv") == ["d.csv:2", "d.csv:5"]
    assert places("d.parquet") == ["d.parquet row 1"]


def test_a_json_file_may_hold_one_object_per_line(tmp_path):
    (tmp_path / "d.json").write_text('{"a": 1}\n{"a": 2}\n')
    assert [row.where for row in read_file("d.json", root=tmp_path)] == ["d.json:1", "d.json:2"]


@pytest.mark.parametrize("name", ["d.jsonl", "d.json", "d.csv"])
@pytest.mark.parametrize("content", ["", "\n\n"])
def test_empty_file(tmp_path, name, content):
    assert refusal(name, content, tmp_path) == f"{name}: the file holds no row"


def test_empty_list_and_header_alone(tmp_path):
    assert refusal("d.json", "[ ]", tmp_path) == "d.json: the file holds no row"
    assert refusal("d.csv", "a,b\n", tmp_path) == "d.csv: the file holds no row"


def test_truncated_last_line(tmp_path):
    message = refusal("d.jsonl", '{"a": "x"}\n{"a": "y', tmp_path)
    assert message == (
        "d.jsonl:2: not valid JSON: Unterminated string starting at (the line is cut off?)"
    )
    assert "(the line is cut off?)" in refusal("d.jsonl", '{"a": "x"}\n{"a": ', tmp_path)
    assert "(the line is cut off?)" in refusal("d.jsonl", '{"a": "x"', tmp_path)


def test_truncated_list(tmp_path):
    message = refusal("d.json", '[{"a": 1},\n{"a": 2}\n', tmp_path)
    assert (
        message
        == "d.json:3: not valid JSON: expected ] or a comma and a row (the file is cut off?)"
    )
    assert "d.json:2: not valid JSON" in refusal("d.json", '[{"a": 1},\n{"a": ', tmp_path)
    assert "d.json:1: not valid JSON" in refusal("d.json", '[{"a": 1},]', tmp_path)
    assert "follows the end of the list" in refusal("d.json", '[{"a": 1}] x', tmp_path)


def test_garbage_line_is_not_called_cut_off(tmp_path):
    assert refusal("d.jsonl", "{'a': 1}\n", tmp_path) == (
        "d.jsonl:1: not valid JSON: Expecting property name enclosed in double quotes"
    )


def test_latin_1(tmp_path):
    content = b'{"a": "x"}\n{"a": "caf\xe9"}\n'
    assert refusal("d.jsonl", content, tmp_path) == (
        "d.jsonl:2: not UTF-8 at byte 21; save the file as UTF-8"
    )
    assert content[21] == 0xE9
    assert "at byte 24;" in refusal("d.jsonl", b"\xef\xbb\xbf" + content, tmp_path)
    assert "d.csv:1: not UTF-8 at byte 0" in refusal("d.csv", "a\nb".encode("utf-16"), tmp_path)


def test_lone_surrogate(tmp_path):
    message = refusal("d.jsonl", '{"a": "x"}\n{"a": "ab\\ud83d"}\n', tmp_path)
    assert message == (
        'd.jsonl:2: "a" holds the lone surrogate \\ud83d at character 2, '
        "which is half of a character and no text"
    )
    assert "lone surrogate" in refusal("d.json", '[{"a": [{"b": "\\uDE00"}]}]', tmp_path)
    assert "lone surrogate" in refusal("d.json", '[{"\\uDE00": 1}]', tmp_path)
    (tmp_path / "pair.jsonl").write_text('{"a": "\\ud83d\\ude00"}')
    assert read_file("pair.jsonl", root=tmp_path)[0].values == {"a": "😀"}


def test_a_row_must_be_an_object(tmp_path):
    assert refusal("d.jsonl", '{"a": 1}\n[1, 2]\n', tmp_path) == (
        "d.jsonl:2: a row must be an object with keys, found a list of 2"
    )
    assert refusal("d.json", '[{"a": 1},\n"text"]', tmp_path) == (
        "d.json:2: a row must be an object with keys, found the text 'text'"
    )


def test_json_that_python_alone_would_accept(tmp_path):
    assert "NaN is not a JSON value" in refusal("d.jsonl", '{"a": NaN}', tmp_path)
    assert refusal("d.jsonl", '{"a": 1, "a": 2}', tmp_path) == (
        'd.jsonl:1: not valid JSON: key "a" stands twice in one object'
    )
    deep = '{"a": ' + "[" * 100_000
    assert "d.jsonl:1: not valid JSON" in refusal("d.jsonl", deep, tmp_path)


def test_csv_faults(tmp_path):
    assert refusal("d.csv", "a,b\n1,2\n3\n", tmp_path) == (
        "d.csv:3: 1 values in the row, 2 columns in the header"
    )
    assert refusal("d.csv", "a,a\n1,2\n", tmp_path) == (
        'd.csv:1: the first line names the columns, and column "a" stands twice'
    )
    assert "a column has no name" in refusal("d.csv", "a,\n1,2\n", tmp_path)
    assert refusal("d.csv", 'a\nx\n"never closed', tmp_path) == (
        "d.csv:3: not valid CSV: unexpected end of data"
    )


def test_not_parquet(tmp_path):
    assert "d.parquet: cannot be read as Parquet: " in refusal("d.parquet", "text", tmp_path)


def test_unknown_path_names_the_nearest_file(tmp_path):
    (tmp_path / "alpaca.jsonl").write_text("{}")
    with pytest.raises(DataError, match=r"alpacca.jsonl: no such file in .*mean alpaca\.jsonl\?"):
        read_file("alpacca.jsonl", root=tmp_path)
    with pytest.raises(DataError, match=r"no/where.jsonl: no such file in"):
        read_file("no/where.jsonl", root=tmp_path)


def test_names_that_are_no_path(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_file("a\0b.jsonl", root=tmp_path)
    with pytest.raises(DataError, match="cannot be read: File name too long"):
        read_file("a" * 300 + ".jsonl", root=tmp_path)


def test_unknown_kind_and_folder(tmp_path):
    assert refusal("d.txt", "x", tmp_path) == (
        "d.txt: files that can be read end in .jsonl, .json, .csv, .parquet"
    )
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x.csv").write_text("a\n1\n")
    with pytest.raises(DataError, match=r"folder: is a folder; name one file of it: x\.csv"):
        read_file("folder", root=tmp_path)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "null"),
        (True, "true"),
        (12, "a number (12)"),
        ("", "an empty text"),
        ("ab", "the text 'ab'"),
        ([1, 2], "a list of 2"),
        ({}, "an object"),
        (b"x", "a bytes"),
    ],
)
def test_describe(value, said):
    assert describe(value) == said
