"""Where do hidden states lie that memory does not hold, and how does one know they are whole?

One file: a head that says whose states these are, then one record after another. The file is
its own index, so that no second one can disagree with it, and it is never written but at its
end. A record's data are written before its head, and the head carries a SHA-256 over key, shape
and data: whatever a killed process, a lost page or a flipped bit leaves behind is either cut
off when the file is opened or found when the record is first read.

    file   := magic (16 bytes) identity (32 bytes) record*
    record := magic (8 bytes) rows (8) width (8) key (32) seal (32) data
"""

import errno
import hashlib
import mmap
import os
import shutil
import struct
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

Shape = tuple[int, int]

_FILE_MAGIC = b"loratlas prefix1"
_RECORD_MAGIC = b"\xf0states\n"
_HEAD = struct.Struct("<16s32s")
_RECORD = struct.Struct("<8sQQ32s32s")

# The run's own records lie on this disk as a rule, and a full one would cost more than states.
_LEFT_FREE_BYTES = 256 * 2**20


class _Entry(NamedTuple):
    offset: int
    """Where the data begin, in bytes from the start of the file."""
    shape: Shape
    seal: bytes | None
    """What the data must hash to; None once they did, or when this process wrote them."""


class StateFile:
    """Two-dimensional arrays of one element size under 32-byte keys, in one file that only grows.

    One thread of one process uses it at a time; a lock beside the file sees to the process.

    Attributes:
        num_bytes: size of the file; never above the limit.
    """

    def __init__(self, path: Path, *, identity: bytes, element_bytes: int, limit: int) -> None:
        """Open the file of this identity, or make a new one in the place of any other.

        Args:
            path: the file; folders above it are made.
            identity: 32 bytes; a file that begins with others is replaced.
            element_bytes: bytes of one number.
            limit: bytes that the file may take, heads included.

        Raises:
            OSError: it cannot be made or written, or another process has it.
        """
        self._element_bytes = element_bytes
        self._limit = limit
        self._path = path
        self._entries: dict[bytes, _Entry] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(path.with_suffix(".lock"), timeout=0)
        try:
            self._lock.acquire()
        except Timeout:
            raise OSError(errno.EBUSY, "another process uses it") from None
        try:
            path.touch()
            # Without a buffer: what was written is known at once, also when the disk is full.
            self._file = path.open("r+b", buffering=0)
        except OSError:
            self._lock.release()
            raise
        try:
            self.num_bytes = self._begin(_HEAD.pack(_FILE_MAGIC, identity))
        except OSError:
            self.close(remove=False)
            raise

    def __contains__(self, key: bytes) -> bool:
        """Whether there is a record of this key, be it sound or not."""
        return key in self._entries

    def fits(self, num_bytes: int) -> bool:
        """Whether a record with so much data stays within the limit."""
        return self.num_bytes + _RECORD.size + num_bytes <= self._limit

    def append(self, key: bytes, shape: Shape, data: memoryview) -> None:
        """Write an array that fits under a key that is not there yet.

        Args:
            key: 32 bytes.
            shape: rows and width of the array.
            data: its ``rows * width * element_bytes`` bytes.

        Raises:
            OSError: the disk is full or cannot be written; the file takes nothing more.
        """
        offset = self.num_bytes + _RECORD.size
        try:
            self._leave_room(_RECORD.size + data.nbytes)
            self._write(offset, data)
            # Last, and in one piece: without its head no record is there.
            self._write(
                self.num_bytes, _RECORD.pack(_RECORD_MAGIC, *shape, key, _seal(key, shape, data))
            )
        except OSError:
            self._limit = self.num_bytes
            self._file.truncate(self.num_bytes)
            raise
        self._entries[key] = _Entry(offset, shape, None)
        self.num_bytes = offset + data.nbytes

    def read(self, key: bytes) -> tuple[Shape, memoryview] | None:
        """Return what lies under a key, or None if nothing sound does.

        A record from an earlier process is hashed the first time; a damaged one is forgotten.

        Returns:
            rows and width, and a read-only view of the bytes, to be copied and let go of.

        Raises:
            OSError: the file cannot be mapped.
        """
        entry = self._entries.get(key)
        if entry is None:
            return None
        data = self._data(entry)
        if data is None or (entry.seal is not None and entry.seal != _seal(key, entry.shape, data)):
            del self._entries[key]
            return None
        self._entries[key] = entry._replace(seal=None)
        return entry.shape, data

    def close(self, *, remove: bool) -> None:
        """Let go of the file, and delete it if asked to.

        The lock's own empty file stays: deleting it would let two processes hold one lock each.

        Raises:
            OSError: it cannot be deleted.
        """
        self._entries.clear()
        self._file.close()
        try:
            if remove:
                self._path.unlink(missing_ok=True)
        finally:
            self._lock.release()

    def _begin(self, head: bytes) -> int:
        """Make the file ready to grow and return its size."""
        if self._read(0, _HEAD.size) == head and self._limit >= _HEAD.size:
            self._entries, end = self._scan()
        else:
            self._file.truncate(0)
            if self._limit < _HEAD.size:
                return 0
            self._write(0, head)
            end = _HEAD.size
        self._file.truncate(end)  # what an interrupted write left behind, or is above the limit
        return end

    def _scan(self) -> tuple[dict[bytes, _Entry], int]:
        """Return the records that can be whole, and where the last of them ends.

        Only heads are read: a file of many gigabytes opens at once.
        """
        entries: dict[bytes, _Entry] = {}
        end = _HEAD.size
        usable_bytes = min(os.fstat(self._file.fileno()).st_size, self._limit)
        while end + _RECORD.size <= usable_bytes:
            magic, rows, width, key, seal = _RECORD.unpack(self._read(end, _RECORD.size))
            offset = end + _RECORD.size
            data_bytes = rows * width * self._element_bytes
            if magic != _RECORD_MAGIC or not 0 < data_bytes <= usable_bytes - offset:
                break
            entries[key] = _Entry(offset, (rows, width), seal)
            end = offset + data_bytes
        return entries, end

    def _data(self, entry: _Entry) -> memoryview | None:
        """Return the bytes of a record as they lie in the file, or None if it became shorter.

        Each is mapped by itself and let go of by its reader: pages of a lasting mapping would
        count as memory of this process, whose peak is among the results of a study.
        """
        num_bytes = entry.shape[0] * entry.shape[1] * self._element_bytes
        skipped = entry.offset % mmap.ALLOCATIONGRANULARITY
        try:
            mapped = mmap.mmap(
                self._file.fileno(),
                skipped + num_bytes,
                access=mmap.ACCESS_READ,
                offset=entry.offset - skipped,
            )
        except ValueError:
            return None
        return memoryview(mapped)[skipped:]

    def _leave_room(self, num_bytes: int) -> None:
        if shutil.disk_usage(self._path.parent).free < num_bytes + _LEFT_FREE_BYTES:
            raise OSError(
                errno.ENOSPC, f"less than {_LEFT_FREE_BYTES // 2**20} MiB would be left on the disk"
            )

    def _read(self, offset: int, num_bytes: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(num_bytes)

    def _write(self, offset: int, data: bytes | memoryview) -> None:
        self._file.seek(offset)
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]


def _seal(key: bytes, shape: Shape, data: memoryview) -> bytes:
    """Return the SHA-256 over a whole record; the key has its fixed length."""
    digest = hashlib.sha256(key)
    digest.update(struct.pack("<QQ", *shape))
    digest.update(data)
    return digest.digest()
