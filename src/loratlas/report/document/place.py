"""Where does a report lie, and how does it come there whole or not at all?"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loratlas.errors import RunFolderError, StoreError

GENERATOR = '<meta name="generator" content="loratlas'
NAMES = frozenset({"index.html", "report.md", "tables.tex", "results.csv", "results.parquet",
                   "trials.csv", "trials.parquet", "figures"})  # fmt: skip
"""What a report consists of."""


@contextmanager
def placed(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write into, and put it in the place of `folder` afterwards.

    Raises:
        RunFolderError: the place holds something that is no report, or cannot be written.
        StoreError: writing failed; then what was there stays as it was.
    """
    require_report(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-partial-"))
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be written: {error.strerror}") from error
    try:
        yield partial
        _put_in_place(partial, folder)
    except OSError as error:
        raise StoreError(f"{folder}: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def require_report(folder: Path) -> None:
    """Refuse a folder that holds anything but an earlier report: it would be lost."""
    try:
        if not folder.exists() and not folder.is_symlink():
            return
        if folder.is_symlink() or not folder.is_dir():
            raise RunFolderError(f"{folder}: is no folder; a report needs one of its own")
        held = {path.name for path in folder.iterdir()}
        page = folder / "index.html"
        ours = page.is_file() and GENERATOR in page.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be looked at: {error.strerror}") from error
    strange = sorted(held if not ours else held - NAMES)
    if strange:
        raise RunFolderError(
            f"{folder}: holds {strange[0]}, which is of no report; "
            "give an empty or a new folder with --out"
        )


def _put_in_place(partial: Path, folder: Path) -> None:
    """Put the new folder where the old one was; a reader misses it for the time of a renaming."""
    partial.chmod(0o777 & ~_umask())
    if not folder.exists():
        partial.rename(folder)
        return
    old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-old-"))
    folder.rename(old / "report")
    try:
        partial.rename(folder)
    except OSError:
        (old / "report").rename(folder)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
