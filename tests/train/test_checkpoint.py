"""Checkpoints: whatever is damaged, torn, foreign or half written does not count."""

import errno
import json
import os
import shutil
import time
from collections import namedtuple
from pathlib import Path

import pytest

from loratlas.train import checkpoint
from loratlas.train.checkpoint import Checkpoints, Keeper, StopRequested

IDENTITY = {"trials": ["one", "two"], "versions": {"torch": "2"}, "rate": 0.1}


class Killed(BaseException):
    """What a process does not live to see."""


def writing(text):
    """Return what writes a state of two files, one of them in a folder of its own."""

    def write(folder):
        (folder / "state.json").write_text(text)
        (folder / "more").mkdir()
        (folder / "more" / "values.bin").write_bytes(text.encode() * 1000)

    return write


def nothing(folder):
    """Write nothing at all."""


def raising(error):
    """Return what writes a file, and fails at the next."""

    def write(folder):
        (folder / "state.json").write_text("half")
        raise error

    return write


@pytest.fixture
def kept(tmp_path):
    """Checkpoints of steps 1 and 2."""
    found = Checkpoints(tmp_path / "pack", IDENTITY)
    for step in (1, 2):
        assert found.save(step, writing(f"state {step}"))
    return found


def text_of(found):
    return (found[1] / "state.json").read_text()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_is_found_by_another_process(kept, tmp_path):
    step, folder = Checkpoints(tmp_path / "pack", IDENTITY).newest()
    assert step == 2
    assert folder == tmp_path / "pack" / "step-00000002"
    assert names(folder) == ["manifest.json", "more", "state.json"]
    assert (folder / "more" / "values.bin").read_bytes() == b"state 2" * 1000


def test_there_is_none_at_first(tmp_path):
    found = Checkpoints(tmp_path / "pack", IDENTITY)
    assert found.newest() is None
    assert not (tmp_path / "pack").exists()


def test_the_newest_two_stay(kept, tmp_path):
    for step in (3, 10):
        assert kept.save(step, writing(f"state {step}"))
    assert names(tmp_path / "pack") == ["step-00000003", "step-00000010"]
    assert kept.newest()[0] == 10


def _torn(folder):
    values = folder / "more" / "values.bin"
    values.write_bytes(values.read_bytes()[:100])


def _changed(folder):
    values = folder / "more" / "values.bin"
    damaged = bytearray(values.read_bytes())
    damaged[500] ^= 1
    values.write_bytes(damaged)


def _linked(folder):
    values = folder / "more" / "values.bin"
    elsewhere = folder.parent.parent / "elsewhere.bin"
    shutil.move(values, elsewhere)
    values.symlink_to(elsewhere)


def _told(folder, **changes):
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **changes}))


DAMAGES = {
    "a torn file": (_torn, "more/values.bin is not what was written"),
    "an empty file": (
        lambda folder: (folder / "state.json").write_text(""),
        "state.json is not what was written",
    ),
    "a changed bit": (_changed, "more/values.bin is not what was written"),
    "a missing file": (
        lambda folder: (folder / "state.json").unlink(),
        "state.json is missing",
    ),
    "a file too many": (
        lambda folder: (folder / "more" / "code.py").touch(),
        "more/code.py does not belong to it",
    ),
    "a link": (_linked, "more/values.bin is not what was written"),
    "no manifest": (
        lambda folder: (folder / "manifest.json").unlink(),
        "manifest.json is missing",
    ),
    "a torn manifest": (
        lambda folder: (folder / "manifest.json").write_text('{"step": 2, "iden'),
        "its manifest cannot be read",
    ),
    "a manifest of other bytes": (
        lambda folder: (folder / "manifest.json").write_bytes(b"\xff\xfe\x00"),
        "its manifest cannot be read",
    ),
    "a manifest without end": (
        lambda folder: (folder / "manifest.json").write_text("[" * 200_000),
        "its manifest cannot be read",
    ),
    "a manifest that is a list": (
        lambda folder: (folder / "manifest.json").write_text("[]"),
        "its manifest cannot be read",
    ),
    "a manifest without files": (
        lambda folder: _told(folder, files=None),
        "its manifest names no files",
    ),
    "a manifest of another step": (
        lambda folder: _told(folder, step=1),
        "its manifest is that of step 1",
    ),
    "a manifest of another training": (
        lambda folder: _told(folder, identity={**IDENTITY, "rate": 0.2}),
        "it is of another training",
    ),
}


@pytest.mark.parametrize(("damage", "reason"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_one_is_passed_over_for_the_one_before(kept, tmp_path, caplog, damage, reason):
    newest = tmp_path / "pack" / "step-00000002"
    damage(newest)
    found = kept.newest()
    assert (found[0], text_of(found)) == (1, "state 1")
    assert f"the checkpoint {newest} is passed over: {reason}" in caplog.text
    assert names(tmp_path / "pack") == ["step-00000001"]


def test_what_lies_behind_a_link_is_left_alone(kept, tmp_path):
    _linked(tmp_path / "pack" / "step-00000002")
    kept.newest()
    assert (tmp_path / "elsewhere.bin").read_bytes() == b"state 2" * 1000


def test_where_both_are_damaged_there_is_none(kept, tmp_path):
    for step in (1, 2):
        _torn(tmp_path / "pack" / f"step-0000000{step}")
    assert kept.newest() is None
    assert kept.save(1, writing("again"))
    assert text_of(kept.newest()) == "again"


@pytest.mark.parametrize("change", [{"rate": 0.2}, {"trials": ["two", "one"]}, {"more": None}])
def test_another_training_does_not_go_on_from_it(kept, tmp_path, change):
    other = Checkpoints(tmp_path / "pack", {**IDENTITY, **change})
    assert other.newest() is None
    assert names(tmp_path / "pack") == []


def test_an_identity_may_hold_what_json_has_no_word_for(kept, tmp_path):
    same = Checkpoints(tmp_path / "pack", {**IDENTITY, "trials": ("one", "two")})
    assert same.newest()[0] == 2


def test_a_step_may_be_kept_again(kept):
    assert kept.save(2, writing("once more"))
    assert text_of(kept.newest()) == "once more"


FULL = {
    "full": (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "the disk is full"),
    "over quota": (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "the disk is full"),
    "read-only": (
        OSError(errno.EROFS, os.strerror(errno.EROFS)),
        "it cannot be written: Read-only file system",
    ),
}


@pytest.mark.parametrize(("error", "reason"), FULL.values(), ids=FULL)
def test_a_disk_that_takes_no_more_costs_only_the_checkpoint(kept, tmp_path, caplog, error, reason):
    assert not kept.save(3, raising(error))
    assert f"no checkpoint after step 3 in {tmp_path / 'pack'}: {reason}" in caplog.text
    assert names(tmp_path / "pack") == ["step-00000001", "step-00000002"]
    assert kept.newest()[0] == 2
    assert kept.save(3, writing("state 3"))


@pytest.mark.parametrize("call", ["fsync", "mkdtemp"])
def test_the_disk_may_be_full_at_any_call(kept, tmp_path, monkeypatch, call):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    module = {"fsync": checkpoint.os, "mkdtemp": checkpoint.tempfile}[call]
    with monkeypatch.context() as patched:
        patched.setattr(module, call, full)
        assert not kept.save(3, writing("state 3"))
    assert names(tmp_path / "pack") == ["step-00000001", "step-00000002"]


def test_a_folder_that_cannot_be_made_costs_only_the_checkpoint(tmp_path, caplog):
    (tmp_path / "file").touch()
    assert not Checkpoints(tmp_path / "file" / "pack", IDENTITY).save(1, writing("state"))
    assert "it cannot be written: Not a directory" in caplog.text


@pytest.mark.parametrize("free_bytes", [1000, 10**12])
def test_a_writer_that_hides_why_is_believed_where_the_disk_is_full(
    kept, tmp_path, monkeypatch, free_bytes
):
    usage = namedtuple("usage", "total used free")(10**12, 0, free_bytes)
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _: usage)
    write = raising(RuntimeError("file write failed"))
    if free_bytes > 2**20:
        with pytest.raises(RuntimeError, match="file write failed"):
            kept.save(3, write)
    else:
        assert not kept.save(3, write)
    assert names(tmp_path / "pack") == ["step-00000001", "step-00000002"]


def test_what_a_killed_process_left_half_written_is_taken_away(kept, tmp_path):
    for read in (kept.newest, lambda: kept.save(3, writing("state 3"))):
        with pytest.raises(Killed):
            kept.save(3, raising(Killed()))
        assert any(name.startswith(".step-3.tmp-") for name in names(tmp_path / "pack"))
        read()
        assert not any(name.startswith(".") for name in names(tmp_path / "pack"))


def test_a_kill_between_any_two_calls_leaves_one_that_is_whole(tmp_path, monkeypatch):
    """Killed at the nth sync, rename or deletion; what is found then is the old or the new one."""
    found = set()
    for killed_at in range(1, 100):
        folder = tmp_path / str(killed_at)
        for step in (1, 2):
            Checkpoints(folder, IDENTITY).save(step, writing(f"state {step}"))
        calls = 0

        def counted(real, last=killed_at):
            def call(*args, **more):
                nonlocal calls
                calls += 1
                if calls == last:
                    raise Killed
                return real(*args, **more)

            return call

        with monkeypatch.context() as patched:
            patched.setattr(checkpoint.os, "fsync", counted(os.fsync))
            patched.setattr(Path, "rename", counted(Path.rename))
            patched.setattr(checkpoint.shutil, "rmtree", counted(shutil.rmtree))
            try:
                Checkpoints(folder, IDENTITY).save(3, writing("state 3"))
            except Killed:
                pass
            else:
                break
        newest = Checkpoints(folder, IDENTITY).newest()
        assert text_of(newest) == f"state {newest[0]}"
        found.add(newest[0])
    assert found == {2, 3}
    assert calls >= 8  # two files, the manifest, three folders, the name, what is let go of


def test_all_are_let_go_of_in_the_end(kept, tmp_path):
    with pytest.raises(Killed):
        kept.save(3, raising(Killed()))
    kept.clear()
    assert not (tmp_path / "pack").exists()
    kept.clear()
    assert kept.newest() is None


def test_what_is_no_checkpoint_is_left_alone(kept, tmp_path):
    (tmp_path / "pack" / "notes.txt").touch()
    (tmp_path / "pack" / "step-last").mkdir()
    assert kept.newest()[0] == 2
    kept.clear()
    assert names(tmp_path / "pack") == ["notes.txt", "step-last"]


class Clock:
    """A clock that is moved by hand."""

    def __init__(self, monkeypatch):
        self.now = time.monotonic()
        monkeypatch.setattr(checkpoint.time, "monotonic", lambda: self.now)


class Recorded:
    """Checkpoints that only say which steps they were given."""

    def __init__(self):
        self.steps = []

    def save(self, step, write):
        write(step)
        self.steps.append(step)
        return True


def test_a_keeper_keeps_what_is_due_and_never_the_last_step(monkeypatch):
    clock, recorded = Clock(monkeypatch), Recorded()
    keeper = Keeper(recorded, every_seconds=10, stop=lambda: False)
    for step in range(1, 11):
        clock.now += 4
        keeper.after_step(step, 10, nothing)
    assert recorded.steps == [3, 6, 9]
    clock.now += 1000
    keeper.after_step(10, 10, nothing)
    assert recorded.steps == [3, 6, 9]


def test_without_a_time_every_step_is_kept_but_the_last():
    recorded = Recorded()
    keeper = Keeper(recorded, every_seconds=0, stop=lambda: False)
    for step in range(1, 5):
        keeper.after_step(step, 4, nothing)
    assert recorded.steps == [1, 2, 3]


@pytest.mark.parametrize("step", [2, 4])
def test_a_stop_is_kept_whatever_the_time_and_the_step(step):
    recorded = Recorded()
    keeper = Keeper(recorded, every_seconds=1e9, stop=lambda: True)
    with pytest.raises(StopRequested):
        keeper.after_step(step, 4, nothing)
    assert recorded.steps == [step]


def test_a_stop_on_a_full_disk_stops_all_the_same(kept):
    keeper = Keeper(kept, every_seconds=1e9, stop=lambda: True)
    with pytest.raises(StopRequested):
        keeper.after_step(3, 4, raising(OSError(errno.ENOSPC, "full")))
    assert kept.newest()[0] == 2


def test_a_full_disk_is_not_tried_at_every_step(monkeypatch):
    clock, tried = Clock(monkeypatch), []

    class Full:
        def save(self, step, write):  # noqa: ARG002
            tried.append(step)
            return False

    keeper = Keeper(Full(), every_seconds=9, stop=lambda: False)
    for step in range(1, 10):
        clock.now += 5
        keeper.after_step(step, 10, nothing)
    assert tried == [2, 4, 6, 8]


def test_no_handler_of_failed_trials_takes_a_stop():
    assert not issubclass(StopRequested, Exception)
