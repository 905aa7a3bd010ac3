import hashlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from loratlas.train.prefix_file import StateFile

IDENTITY = bytes(range(32))
ELEMENT_BYTES = 4
MEBIBYTE = 2**20


def record(index, *, width=2):
    """Return key, shape and data; all follow from the index."""
    key = hashlib.sha256(str(index).encode()).digest()
    shape = (index % 3 + 1, width)
    data = random.Random(index).randbytes(shape[0] * width * ELEMENT_BYTES)
    return key, shape, data


def opened(path, *, identity=IDENTITY, limit=64 * MEBIBYTE):
    return StateFile(path, identity=identity, element_bytes=ELEMENT_BYTES, limit=limit)


def append(file, index, **size):
    key, shape, data = record(index, **size)
    file.append(key, shape, memoryview(data))


def found(file, index, **size):
    """Whether a record is there; one that is there must be the right one."""
    key, shape, data = record(index, **size)
    there = file.read(key)
    if there is None:
        return False
    assert there == (shape, data)
    return True


@contextmanager
def file_of(path, **changes):
    file = opened(path, **changes)
    try:
        yield file
    finally:
        file.close(remove=False)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "states"


@pytest.fixture
def three(path):
    """The path of a file with records 0, 1 and 2."""
    with file_of(path) as file:
        for index in range(3):
            append(file, index)
    return path


def test_what_was_written_is_read_by_the_next_process_too(three):
    assert three.stat().st_size == 48 + 3 * 88 + (1 + 2 + 3) * 2 * ELEMENT_BYTES
    with file_of(three) as file:
        assert [found(file, index) for index in range(4)] == [True, True, True, False]
        append(file, 3)
        assert found(file, 3)
        assert file.num_bytes == three.stat().st_size
    with file_of(three) as file:
        assert all(found(file, index) for index in range(4))


def test_a_file_cut_anywhere_gives_whole_records_or_none_and_grows_again(three):
    content = three.read_bytes()
    ends = [48 + 88 + 8, 48 + 2 * 88 + 24, 48 + 3 * 88 + 48]
    for length in range(len(content)):
        three.write_bytes(content[:length])
        with file_of(three) as file:
            assert [found(file, index) for index in range(3)] == [length >= end for end in ends]
            if not found(file, 2):
                append(file, 2)
            assert found(file, 2)
        with file_of(three) as file:
            assert found(file, 2)


def test_no_flipped_bit_gives_another_state(three):
    content = three.read_bytes()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        three.write_bytes(damaged)
        with file_of(three) as file:
            assert [found(file, index) for index in range(3)].count(True) < 3


@pytest.mark.parametrize("content", [b"", b"some notes\n", bytes(4096), b"\xff" * 4096])
def test_a_foreign_file_is_replaced(path, content):
    path.write_bytes(content)
    with file_of(path) as file:
        assert file.num_bytes == path.stat().st_size == 48
        append(file, 0)
        assert found(file, 0)


def test_a_file_of_another_identity_is_replaced(three):
    with file_of(three, identity=bytes(32)) as file:
        assert not found(file, 0)
    with file_of(three) as file:
        assert not found(file, 0)


def test_a_smaller_limit_cuts_an_earlier_file(three):
    size = three.stat().st_size
    with file_of(three, limit=size - 1) as file:
        assert [found(file, index) for index in range(3)] == [True, True, False]
        assert three.stat().st_size == file.num_bytes <= size - 1
    with file_of(three, limit=47) as file:
        assert not found(file, 0)
        assert three.stat().st_size == file.num_bytes == 0
        assert not file.fits(1)


def test_a_file_that_becomes_shorter_while_it_is_open_gives_none(three):
    with file_of(three) as file:
        assert found(file, 2)
        os.truncate(three, three.stat().st_size - 1)
        assert not found(file, 2)
        assert found(file, 1)


def test_two_do_not_share_a_file(three):
    with file_of(three) as file:
        with pytest.raises(OSError, match="another process uses it"):
            opened(three)
        assert found(file, 2)
    with file_of(three) as file:
        assert found(file, 2)


@contextmanager
def largest_file(num_bytes):
    """Let the system refuse to write beyond a size, as a full disk does: in mid-write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_the_system_refuses_leaves_whole_records_only(path):
    limit = 48 + 3 * 88 + 2 * 5000 * (1 + 2 + 3)
    with file_of(path) as file:
        for index in range(2):
            append(file, index, width=2500)
        size = file.num_bytes
        with largest_file(limit - 1), pytest.raises(OSError, match="File too large"):
            append(file, 2, width=2500)
        assert path.stat().st_size == file.num_bytes == size
        assert not file.fits(1)
        assert [found(file, index, width=2500) for index in range(3)] == [True, True, False]


def test_the_last_of_a_disk_is_left_to_the_run(path, monkeypatch):
    with file_of(path) as file:
        usage = shutil.disk_usage(path.parent)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=256 * MEBIBYTE))
        with pytest.raises(OSError, match="less than 256 MiB would be left on the disk"):
            append(file, 0)
        monkeypatch.undo()
        assert file.num_bytes == path.stat().st_size == 48
        assert not file.fits(1)


# Records of 4 to 12 MiB, so that most of a writer's time passes in the middle of one.
WIDTH = MEBIBYTE
NUM_RECORDS = 8

WRITER = """
import sys
from pathlib import Path
from test_prefix_file import NUM_RECORDS, WIDTH, opened, record

records = [record(index, width=WIDTH) for index in range(NUM_RECORDS)]
file = opened(Path(sys.argv[1]), limit=2**40)
for index, (key, shape, data) in enumerate(records):
    if key not in file:
        file.append(key, shape, memoryview(data))
        print(index, flush=True)
"""


def writer(path, prelude=""):
    return subprocess.Popen(
        [sys.executable, "-c", prelude + WRITER, str(path)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parent,
    )


def test_a_writer_killed_at_any_moment_leaves_a_file_that_can_be_trusted(path):
    chance = random.Random(0)
    num_found = 0
    for _ in range(4):
        with writer(path) as process:
            process.stdout.readline()
            time.sleep(chance.uniform(0, 0.03))
            process.kill()
        with file_of(path) as file:
            there = [found(file, index, width=WIDTH) for index in range(NUM_RECORDS)]
            # What was whole before stays, and the record that was reported is among them.
            assert there == sorted(there, reverse=True)
            assert sum(there) >= min(num_found + 1, NUM_RECORDS)
            num_found = sum(there)


def test_data_without_their_head_are_no_record(path):
    prelude = """
import os, signal
from loratlas.train import prefix_file
whole = prefix_file._seal
prefix_file._seal = lambda key, shape, data: (
    os.kill(os.getpid(), signal.SIGKILL) if shape[0] == 2 else whole(key, shape, data)
)
"""
    with writer(path, prelude) as process:
        assert process.stdout.read() == b"0\n"
    assert process.returncode == -signal.SIGKILL
    whole = 48 + 88 + WIDTH * ELEMENT_BYTES
    assert path.stat().st_size == whole + 88 + 2 * WIDTH * ELEMENT_BYTES
    with file_of(path) as file:
        assert found(file, 0, width=WIDTH)
        assert not found(file, 1, width=WIDTH)
        assert path.stat().st_size == file.num_bytes == whole
