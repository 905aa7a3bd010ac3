"""Rows that are not there, cannot be read, or cannot be used."""

import json
from pathlib import Path

import tiny_study
from bad_input.case import RUN, Case, Spoil, both, edit, write

_GOOD = '{"prompt": "a", "completion": "b"}\n'


def _case(name: str, given: Spoil, says: str) -> Case:
    return Case(name=name, given=given, asked=RUN, says=says)


def _source(name: str, source: str, says: str, given: Spoil | None = None) -> Case:
    named = edit(("source: rows.jsonl", f"source: {source}"))
    return _case(name, named if given is None else both(named, given), says)


def _rows(name: str, content: str | bytes, says: str) -> Case:
    return _case(name, write("rows.jsonl", content), says)


def _file(name: str, file: str, content: str | bytes, says: str) -> Case:
    return _source(name, file, f"{file}{says}", write(file, content))


def _as(data_format: str) -> tuple[str, str]:
    return ("prompt_completion", data_format)


def _written(file: str, rows: list[dict[str, object]]) -> Spoil:
    return write(file, "".join(f"{json.dumps(row)}\n" for row in rows))


def _conversations(*turns: dict[str, str]) -> Spoil:
    rows = [{"messages": [{"role": "user", "content": f"a{i}"}, *turns]} for i in range(60)]
    return both(edit(_as("messages")), _written("rows.jsonl", rows))


def _labelled(label: object) -> Spoil:
    rows = [{"text": f"a {i}", "label": label} for i in range(60)]
    return both(edit(_as("classification")), _written("rows.jsonl", rows))


def _long_rows(words: int) -> Spoil:
    text = " since then," * words
    rows = [{"prompt": f"Where is {i}?", "completion": f" In Oslo,{text}"} for i in range(60)]
    return _written("rows.jsonl", rows)


def _overlapping(folder: Path) -> None:
    """Train and test files that share 12 rows."""
    rows = tiny_study.rows(1, 60)
    _written("train.jsonl", list(rows))(folder)
    _written("test.jsonl", list(rows[:12]))(folder)


def _overlong_and_short(folder: Path) -> None:
    _long_rows(60)(folder)
    file = folder / "rows.jsonl"
    file.write_text(file.read_text() + '{"prompt": "x", "completion": "y"}\n')


_SPLITS = edit(
    ("source: rows.jsonl", "source: {train: train.jsonl, test: test.jsonl}"), ("  test: 12\n", "")
)

_PLACES = [
    _source(
        "a file name that is nearly right",
        "row.jsonl",
        "row.jsonl: no such file in ...(did you mean rows.jsonl?)",
    ),
    _source("a file in a folder that is not there", "no/such/f.jsonl", "no/such/f.jsonl: no such"),
    _source(
        "a kind of file that is not read",
        "rows.tsv",
        "rows.tsv: files that can be read end in .jsonl, .json, .csv, .parquet",
        write("rows.tsv", "a\tb\n"),
    ),
    _source("a data set that is not there", "nobody/nothing", "nobody/nothing: neither a file in "),
    _source(
        "a bundled task that is none",
        "demo:factz",
        "factz: no such bundled task (did you mean facts?); there is: facts",
    ),
    _source(
        "a test file that is not there",
        "{train: rows.jsonl, test: tests.jsonl}",
        "tests.jsonl: no such file in ",
    ),
    Case(
        name="files by split without training rows",
        given=edit(("source: rows.jsonl", "source: {test: rows.jsonl}")),
        asked=RUN,
        says="study.yaml:4: data.source.train: this key is missing",
    ),
]

_FILES = [
    _rows("an empty file", "", "rows.jsonl: the file holds no row"),
    _rows("blank lines", "\n \n", "rows.jsonl: the file holds no row"),
    _rows(
        "a last line cut off",
        _GOOD + '{"prompt": "a", "compl',
        "rows.jsonl:2: not valid JSON: Unterminated string...(the line is cut off?)",
    ),
    _rows(
        "a row without its answer",
        _GOOD + '{"prompt": "a"}',
        'rows.jsonl:2: no key "completion"; the row holds prompt',
    ),
    _rows(
        "a key misspelt",
        _GOOD + '{"prompt": "a", "complition": "b"}',
        'rows.jsonl:2: no key "completion"; ...(did you mean complition?)',
    ),
    _rows(
        "a number among texts",
        _GOOD + '{"prompt": "a", "completion": 3}',
        'rows.jsonl:2: "completion" must be a text, found a number (3)',
    ),
    _rows(
        "null among texts",
        _GOOD + '{"prompt": "a", "completion": null}',
        'rows.jsonl:2: "completion" must be a text, found null',
    ),
    _rows(
        "an empty prompt",
        _GOOD + '{"prompt": "", "completion": "b"}',
        'rows.jsonl:2: "prompt" must hold some text',
    ),
    _rows(
        "a list among rows", _GOOD + "[1]", "rows.jsonl:2: a row must be an object with keys, found"
    ),
    _rows("NaN in a row", _GOOD + '{"prompt": NaN}', "rows.jsonl:2: not valid JSON: NaN is not a"),
    _rows(
        "a key twice in a row",
        '{"prompt": "a", "prompt": "b", "completion": "c"}',
        'rows.jsonl:1: not valid JSON: key "prompt" stands twice',
    ),
    _rows(
        "a lone surrogate", _GOOD + '{"prompt": "\\ud800"}', 'rows.jsonl:2: "prompt" holds the lone'
    ),
    _rows(
        "a row nested without end", _GOOD + "[" * 100_000, "rows.jsonl:2: not valid JSON: nested"
    ),
    _rows(
        "Latin-1",
        _GOOD.encode() + b'{"prompt": "\xe9"}',
        "rows.jsonl:2: not UTF-8 at byte 47; save",
    ),
    _file(
        "a JSON list cut off", "rows.json", f"[{_GOOD}", ":2: not valid JSON: expected ] or a comma"
    ),
    _file(
        "a column twice",
        "rows.csv",
        "prompt,prompt\na,b\n",
        ':1: the first line names the columns, and column "prompt" stands twice',
    ),
    _file(
        "a row of another width",
        "rows.csv",
        "prompt,completion\na,b,c\n",
        ":2: 3 values in the row",
    ),
    _file("damaged Parquet", "rows.parquet", b"PAR1 no", ": cannot be read as Parquet: "),
]

_CONTENT = [
    _rows("too few rows", _GOOD, "rows.jsonl: too few rows: usable 1, asked for 12 test + 8"),
    _rows(
        "rows without an answer",
        '{"prompt": "a", "completion": ""}\n' * 60,
        "rows.jsonl: too few rows: usable 0 (60 less 60 without an answer)",
    ),
    _rows(
        "one row sixty times",
        _GOOD * 60,
        "rows.jsonl: too few rows: usable 1 (60 less 59 repeated)",
    ),
    _case(
        "every label masked",
        edit(("max_length: 48", "max_length: 3")),
        "data: train has zero supervised tokens: in each of",
    ),
    _case(
        "rows longer than the model reads",
        both(edit(("max_length: 48", "max_length: 200")), _long_rows(60)),
        "study.yaml: data.max_length: 200 lets rows of ...reads at most 64",
    ),
    _case(
        "rows of another format", edit(_as("alpaca")), 'rows.jsonl:1: no key "instruction"; the row'
    ),
    _case(
        "texts that have a response", edit(_as("text")), "data.loss_on: format text has no response"
    ),
    _case(
        "rows that are no conversations", edit(_as("messages")), 'rows.jsonl:1: no key "messages"'
    ),
    _case(
        "no chat template",
        _conversations({"role": "assistant", "content": "b"}),
        "data.format: messages needs a chat template, and the tokenizer of ",
    ),
    _case(
        "a role that is none",
        _conversations({"role": "asistant", "content": "b"}),
        'rows.jsonl:1: message 2: role "asistant" is none of ...(did you mean assistant?)',
    ),
    _case(
        "a label that is no class",
        _labelled(0.5),
        'rows.jsonl:1: "label" must be a text or a whole',
    ),
    _case(
        "one class alone",
        _labelled("yes"),
        "data: classification needs at least two classes in train, found only yes",
    ),
    _case(
        "no test rows", edit(("  test: 12\n", "")), "data.test: rows.jsonl has no test split; say"
    ),
    _case(
        "training rows that are test rows",
        both(
            _SPLITS,
            lambda folder: [
                write(f"{split}.jsonl", (folder / "rows.jsonl").read_bytes())(folder)
                for split in ("train", "test")
            ],
        ),
        "too few rows: ",
    ),
    Case(
        name="several rates and no validation rows",
        given=edit(("  validation: 8\n", ""), ("1e-2", "[1e-3, 1e-2]")),
        asked=RUN,
        says="study.yaml: data.validation: several learning rates need validation rows",
    ),
    Case(
        name="rows shared by train and test",
        given=both(_SPLITS, _overlapping),
        asked=(*RUN, "--no-probe"),
        code=0,
        why="they are left out of training, and the run says how many",
        says="rows dropped because the source's own test or validation split holds them: 12.",
        leaves=("out", "out/*"),
    ),
    Case(
        name="rows of one token, and over-long rows",
        given=_overlong_and_short,
        asked=(*RUN, "--no-probe"),
        code=0,
        why="what is longer than max_length is cut and counted",
        says="rows cut at 48 tokens.",
        leaves=("out", "out/*"),
    ),
]

CASES = [*_PLACES, *_FILES, *_CONTENT]
