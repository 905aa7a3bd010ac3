"""When is what was written on the disk, so that a machine that loses power has it?"""

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Bring a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Bring the files of a folder to the disk, and the folder after them; it has no subfolders."""
    for path in folder.iterdir():
        sync(path)
    sync(folder)
