"""Whose turn it is: one `loratlas run` at a time works in a run folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from loratlas.errors import RunFolderError
from loratlas.study.inside import refuse_links_out

LOCK_NAME = "run.lock"


@contextmanager
def only_controller(folder: Path) -> Iterator[None]:
    """Hold a run folder; the operating system lets go of it when the process ends.

    Raises:
        RunFolderError: another process holds it, or it holds links that lead out of it.
    """
    refuse_links_out(folder)  # the lock itself would be written through one
    lock = FileLock(folder / LOCK_NAME, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RunFolderError(f"{folder}: another `loratlas run` is working here") from None
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()
