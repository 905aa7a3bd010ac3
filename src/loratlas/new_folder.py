"""How does a folder come into being whole, or not at all?"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loratlas.errors import RunFolderError, StoreError


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write into; when all went well it becomes `folder`.

    Raises:
        RunFolderError: something is there already, or the place cannot be written.
        StoreError: writing failed; then nothing is left of it.
    """
    require_new(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name[:64]}-partial-"))
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be written: {error.strerror}") from error
    try:
        yield partial
        partial.chmod(0o777 & ~_umask())
        partial.rename(folder)  # takes the place of an empty folder
    except OSError as error:
        raise StoreError(f"{folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def require_new(folder: Path) -> None:
    """Refuse a place where something is: it would be lost, or mixed with what is written.

    Raises:
        RunFolderError: it is no empty folder, or cannot be looked at.
    """
    try:
        if not folder.exists() and not folder.is_symlink():
            return
        if folder.is_symlink() or not folder.is_dir():
            raise RunFolderError(f"{folder}: is no folder; give a new one with --out")
        held = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be looked at: {error.strerror}") from error
    if held:
        raise RunFolderError(f"{folder}: holds {held[0]}; give an empty or a new folder with --out")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
