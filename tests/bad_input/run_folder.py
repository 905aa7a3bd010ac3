"""Run folders that are none, are damaged, are busy, or belong to another study."""

import fcntl
import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from bad_input.case import LONG, Case, Spoil, edit, write

_STORE = "run/run.sqlite"
_AGAIN = ("run", "study.yaml", "--out", "run")
_READERS = ("status", "results", "recommend", "report", "audit")


def _of_each_reader(name: str, run: str, says: str, **rest: Any) -> list[Case]:
    """The same fault, met by every verb that reads a run."""
    return [
        Case(name=f"{name} ({verb})", asked=(verb, run), says=says, **rest) for verb in _READERS
    ]


def _changed(name: str, given: Spoil, says: str) -> Case:
    """A run that was begun, and is gone on with after something of it has changed."""
    return Case(name=name, given=given, asked=_AGAIN, says=says, finished=True, alone=True)


def _of_run(name: str, asked: tuple[str, ...], says: str, **rest: Any) -> Case:
    return Case(name=name, asked=asked, says=says, finished=True, alone=True, **rest)


def _damaged(name: str, says: str, given: Spoil) -> Case:
    return Case(name=name, asked=("results", "run"), says=says, given=given, code=1)


def _empty_run(content: bytes) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / "run").mkdir()
        (folder / _STORE).write_bytes(content)

    return spoil


def _a_run_nearby(folder: Path) -> None:
    (folder / "runs" / "first").mkdir(parents=True)
    (folder / "runs" / "first" / "run.sqlite").touch()


def _other_weights(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = folder / "model" / "model.safetensors"
    tensors = {name: tensor * 1.01 for name, tensor in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})


def _cut_store(folder: Path) -> None:
    file = folder / _STORE
    file.write_bytes(file.read_bytes()[:5000])


def _later_schema(folder: Path) -> None:
    with closing(sqlite3.connect(folder / _STORE)) as store, store:
        store.execute(
            "UPDATE meta SET value = ? WHERE key = 'schema'", (json.dumps({"value": 99}),)
        )


def _without(*names: str) -> Spoil:
    return lambda folder: [shutil.rmtree(folder / "run" / name) for name in names]


def _links_out(folder: Path) -> None:
    shutil.rmtree(folder / "run" / "adapters")
    (folder / "run" / "adapters").symlink_to("/tmp")


def _reversed_rows(folder: Path) -> None:
    file = folder / "rows.jsonl"
    file.write_text("\n".join(reversed(file.read_text().splitlines())) + "\n")


def _one_seed(folder: Path) -> None:
    """Leave the trials of the first seed."""
    with closing(sqlite3.connect(folder / _STORE)) as store, store:
        store.execute("DELETE FROM trials WHERE seed > 0")


def _begun(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "run.lock").touch()


def _notes_in_report(folder: Path) -> None:
    (folder / "run" / "report").mkdir()
    (folder / "run" / "report" / "notes.txt").write_text("mine")


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a run folder as another `loratlas run` does."""
    with (folder / "out" / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _written(folder: Path) -> Iterator[None]:
    """Keep the store of a run locked, as a program that looks into it can."""
    with closing(sqlite3.connect(folder / _STORE)) as store:
        store.execute("BEGIN EXCLUSIVE")
        yield
        store.rollback()


_NO_RUN = [
    *_of_each_reader("a run that is not there", "nowhere", "nowhere: no such run folder"),
    *_of_each_reader("a run folder without a run", ".", ".: no run here (run.sqlite is missing)"),
    Case(
        name="a file in place of a run",
        asked=("status", "study.yaml"),
        says="study.yaml: is a file; give the run folder",
    ),
    Case(
        name="a run name of 300 characters",
        asked=("results", LONG),
        says="aaa: cannot be looked at: File name too long",
    ),
    Case(
        name="a run name that is nearly right",
        given=_a_run_nearby,
        asked=("status", "runs/frist"),
        says="runs/frist: no such run folder (did you mean first?); in runs there is: first",
    ),
    Case(
        name="a pilot that is not there",
        asked=("plan", "study.yaml", "--pilot", "nowhere"),
        says="nowhere: no such run folder",
    ),
]

_DAMAGED = [
    _damaged(
        "a store that is text",
        "run/run.sqlite: file is not a database",
        _empty_run(b"no database, only its name" * 99),
    ),
    _damaged("an empty store", "run/run.sqlite: no such table: meta", _empty_run(b"")),
    _of_run("a store cut off", ("results", "run"), "run/run.sqlite: ", given=_cut_store, code=1),
    _of_run("a store of a later version", ("results", "run"), "run...99", given=_later_schema),
    _of_run(
        "a store that another program locks",
        ("status", "run"),
        "run/run.sqlite: database is locked",
        beside=_written,
        code=1,
        seconds=90,
    ),
]

_BUSY = [
    Case(
        name="two controllers of one run folder",
        asked=("run", "study.yaml", "--out", "out"),
        given=_begun,
        beside=_held,
        says="out: another `loratlas run` is working here",
    ),
]

_CHANGED = [
    _changed(
        "a study file that was edited",
        edit(("rank: 2", "rank: 3"), ("steps: 3", "steps: 4")),
        "run: holds another study: lora.rank was 2, now 3; training.steps was 3, now 4; give "
        "another folder with --out",
    ),
    _changed("a base that has changed", _other_weights, "run: holds another study: base was "),
    _changed("rows that have changed", _reversed_rows, "run: holds another study: data_rows was "),
    _changed(
        "a tokenizer that has changed",
        edit(
            ('"add_prefix_space": false', '"add_prefix_space": true'), file="model/tokenizer.json"
        ),
        "run: holds another study: data_rows was ",
    ),
    _changed(
        "a run folder that links out",
        _links_out,
        "run: adapters is a link that leads out of the run folder; nothing is read or written",
    ),
    _of_run(
        "an audit of changed rows",
        ("audit", "run"),
        "the rows are no longer those that the run",
        given=_reversed_rows,
    ),
    _of_run(
        "an audit without adapters",
        ("audit", "run"),
        "run: no trial to audit: full, seed 0: its",
        given=_without("adapters"),
    ),
    _of_run(
        "an audit of a split that is none",
        ("audit", "run", "--split", "tset"),
        "tset: no such split (did you mean test?)",
    ),
    _of_run(
        "an audit without its data",
        ("audit", "run"),
        "rows.jsonl: no such file in ",
        given=lambda folder: (folder / "rows.jsonl").unlink(),
    ),
]

_ASKED = [
    _of_run(
        "a report beside notes",
        ("report", "run"),
        "run/report: holds notes.txt, which is of no",
        given=_notes_in_report,
    ),
    _of_run(
        "a report in place of a file",
        ("report", "run", "--out", "rows.jsonl"),
        "rows.jsonl: is no folder; a report needs one of its own",
    ),
    _of_run(
        "a report below a file",
        ("report", "run", "--out", "rows.jsonl/x"),
        "rows.jsonl/x: cannot be written: ",
    ),
    _of_run(
        "a report that cannot be placed",
        ("report", "run", "--out", "/proc/loratlas"),
        "/proc/loratlas: cannot be written: ",
    ),
    _of_run(
        "an audit in a report that is damaged",
        ("report", "run"),
        "index.html",
        given=write("run/audit.json", "{"),
        code=0,
        leaves=("run/report*",),
        why="the report says that the audit beside it cannot be read",
    ),
    _of_run(
        "a preset that is none",
        ("recommend", "run", "--preset", "balance"),
        "--preset balance: there is no such preset (did you mean balanced?)",
    ),
    _of_run(
        "a pilot of one seed",
        ("plan", "study.yaml", "--pilot", "run"),
        "run: tells no spread over seeds; a pilot needs a placement beside its baseline",
        given=_one_seed,
    ),
]

CASES = [*_NO_RUN, *_DAMAGED, *_BUSY, *_CHANGED, *_ASKED]
