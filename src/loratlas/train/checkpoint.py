"""How is the state of a training kept, so that whatever ends it, what is read back is whole?

A checkpoint is a folder. It is written under a temporary name, every file is synced, the manifest
with their SHA-256 comes last, and only then does the folder get its name. What a killed process, a
lost page, a flipped bit or a full disk leaves behind does not verify, and the one before serves.

    folder     := step-00000012/ step-00000024/ …
    step-…     := files of the training, manifest.json
"""

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loratlas.train.durable import sync

log = logging.getLogger(__name__)

_MANIFEST = "manifest.json"
_STEP = re.compile(r"step-(\d{8,})")
_TEMPORARY = ".step-"
_NUM_KEPT = 2
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Some writers hide what the system said; a disk with less than this is full.
_AS_GOOD_AS_FULL_BYTES = 2**20


class StopRequested(BaseException):
    """Training was asked to stop; its state is saved.

    It is no failure of a trial, so that nothing that looks for those may catch it.
    """


class Checkpoints:
    """The checkpoints of one pack or trial, in one folder; at most the newest two stay.

    One process uses a folder at a time.

    Args:
        folder: where they lie; made when the first is saved, and nothing else lies there.
        identity: what is trained, as plain data: a checkpoint of anything else does not count.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self._folder = folder
        # As it will be read back: tuples have become lists by then.
        self._identity = json.loads(json.dumps(identity, allow_nan=False))

    def newest(self) -> tuple[int, Path] | None:
        """Return step and folder of the newest that verifies; those that do not are deleted."""
        self._remove_temporary()
        for step, path in self._known():
            reason = self._trouble(step, path)
            if reason is None:
                return step, path
            log.warning("the checkpoint %s is passed over: %s", path, reason)
            shutil.rmtree(path, ignore_errors=True)
        return None

    def save(self, step: int, write: Callable[[Path], None]) -> bool:
        """Keep the state after a step, and let go of all but the newest two.

        Args:
            step: optimiser steps done.
            write: writes the state into an empty folder, subfolders allowed.

        Returns:
            whether it is kept. On a disk that is full or cannot be written it is not: nothing of it
            stays behind, those before it stay as they are, and training can go on.
        """
        temporary: Path | None = None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._remove_temporary()
            temporary = Path(tempfile.mkdtemp(prefix=f"{_TEMPORARY}{step}.tmp-", dir=self._folder))
            write(temporary)
            self._seal(step, temporary)
            self._name(step, temporary)
        except Exception as error:
            reason = _disk_trouble(error, self._folder)
            if temporary is not None:
                shutil.rmtree(temporary, ignore_errors=True)
            if reason is None:
                raise
            log.warning("no checkpoint after step %d in %s: %s", step, self._folder, reason)
            return False
        for _, path in self._known()[_NUM_KEPT:]:
            shutil.rmtree(path, ignore_errors=True)
        return True

    def clear(self) -> None:
        """Delete all of them, and the folder if nothing else lies there."""
        self._remove_temporary()
        for _, path in reversed(self._known()):  # a kill in between leaves the newest
            shutil.rmtree(path, ignore_errors=True)
        if self._folder.is_dir() and not any(self._folder.iterdir()):
            self._folder.rmdir()

    def _known(self) -> list[tuple[int, Path]]:
        """Return what has the name of a checkpoint, the newest first."""
        if not self._folder.is_dir():
            return []
        named = ((_STEP.fullmatch(path.name), path) for path in self._folder.iterdir())
        return sorted(((int(name[1]), path) for name, path in named if name), reverse=True)

    def _remove_temporary(self) -> None:
        if self._folder.is_dir():
            for path in self._folder.glob(f"{_TEMPORARY}*"):
                shutil.rmtree(path, ignore_errors=True)

    def _seal(self, step: int, folder: Path) -> None:
        """Bring every file to the disk, and the manifest after them."""
        files = _files(folder)
        for path in files.values():
            sync(path)
        manifest = folder / _MANIFEST
        described = {name: _described(path) for name, path in sorted(files.items())}
        told = {"step": step, "identity": self._identity, "files": described}
        manifest.write_text(json.dumps(told, indent=1, allow_nan=False), encoding="utf-8")
        sync(manifest)
        for inner in (path for path in folder.rglob("*") if path.is_dir()):
            sync(inner)
        sync(folder)

    def _name(self, step: int, temporary: Path) -> None:
        """Give a whole checkpoint its name; one of the same step makes way for it."""
        final = self._folder / f"step-{step:08d}"
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
        sync(self._folder)
        sync(self._folder.parent)

    def _trouble(self, step: int, path: Path) -> str | None:
        """Return why a checkpoint does not count, or None where it does."""
        try:
            manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
            if not isinstance(manifest, dict):
                return "its manifest cannot be read"
            if manifest.get("step") != step:
                return f"its manifest is that of step {manifest.get('step')}"
            if manifest.get("identity") != self._identity:
                return "it is of another training"
            found = {name: _described(file) for name, file in _files(path).items()}
        except FileNotFoundError as error:
            return f"{Path(error.filename or path).name} is missing"
        except OSError as error:
            return f"it cannot be read: {error.strerror or error}"
        except (ValueError, RecursionError):  # what json and its decoder raise
            return "its manifest cannot be read"
        return _difference(manifest.get("files"), found)


@dataclass(eq=False)
class Keeper:
    """When is the state of a training kept, and when does the training stop?

    Attributes:
        checkpoints: where it is kept.
        every_seconds: time between two checkpoints; 0 keeps the state after every step.
        stop: whether the training is asked to stop; asked after every step.
    """

    checkpoints: Checkpoints
    every_seconds: float
    stop: Callable[[], bool]
    # Monotonic: a clock that is put forward or back changes nothing.
    _saved_at: float = field(default_factory=time.monotonic, init=False, repr=False)

    def after_step(self, step: int, total: int, write: Callable[[Path], None]) -> None:
        """Keep the state if it is time to, or if this is the end.

        Args:
            step: optimiser steps done.
            total: optimiser steps in all; the state after the last is kept only for a stop.
            write: writes the state into an empty folder.

        Raises:
            StopRequested: the training is asked to stop. Its state is kept, unless the disk is
                full; then an older one is.
        """
        stopping = self.stop()
        due = step < total and time.monotonic() - self._saved_at >= self.every_seconds
        if stopping or due:
            self.checkpoints.save(step, write)
            self._saved_at = time.monotonic()
        if stopping:
            raise StopRequested


def _files(folder: Path) -> dict[str, Path]:
    """Return the files of a checkpoint by their names relative to it, without the manifest."""
    return {
        path.relative_to(folder).as_posix(): path
        for path in _entries(folder)
        if path != folder / _MANIFEST
    }


def _entries(folder: Path) -> Iterator[Path]:
    """Yield what is no folder; a link is an entry, and what lies behind it is not looked at."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            yield from _entries(path)
        else:
            yield path


def _described(path: Path) -> dict[str, Any]:
    """Return size and SHA-256 of a file; a link has neither, so that it never verifies."""
    if path.is_symlink():
        return {"bytes": None, "sha256": None}
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": os.fstat(file.fileno()).st_size, "sha256": digest}


def _difference(told: Any, found: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return what distinguishes the files that are there from those of the manifest."""
    if not isinstance(told, dict):
        return "its manifest names no files"
    if missing := sorted(told.keys() - found.keys()):
        return f"{missing[0]} is missing"
    if extra := sorted(found.keys() - told.keys()):
        return f"{extra[0]} does not belong to it"
    differing = (name for name, own in found.items() if own["sha256"] is None or told[name] != own)
    name = next(differing, None)
    return None if name is None else f"{name} is not what was written"


def _disk_trouble(error: Exception, folder: Path) -> str | None:
    """Return what the disk did not do, or None where an error has another cause.

    A writer such as torch's names none; then what is left on the disk tells.
    """
    if isinstance(error, OSError):
        full = error.errno in _FULL
        return "the disk is full" if full else f"it cannot be written: {error.strerror or error}"
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return None
    return "the disk is full" if free < _AS_GOOD_AS_FULL_BYTES else None
