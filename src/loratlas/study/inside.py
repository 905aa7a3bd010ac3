"""Does everything in a run folder lie in it? Links and paths that lead elsewhere are refused.

A run folder can come from somebody else, by a copy or a shared disk. What it says of where its
files are is then a claim: a run would write through a link, and a report would show what it reads
through one. Who may write into the folder while a command works is another matter; that person can
do whatever the command can.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from loratlas.errors import RunFolderError
from loratlas.paths import leads_out

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_OF_OTHERS = {"report", "tracking"}
"""What is below these is written by packages of others, or looked at by a person alone."""


def refuse_links_out(folder: Path) -> None:
    """Refuse a run folder that holds a link out of it.

    Raises:
        RunFolderError: there is one; names it.
    """
    for path in _links(folder):
        name = path.relative_to(folder)
        if leads_out(folder, name):
            raise RunFolderError(
                f"{folder}: {name} is a link that leads out of the run folder; nothing is read or "
                "written through it (the run folder itself may be a link)"
            )


def adapter_fault(folder: Path, adapter: str | None) -> str | None:
    """Return why a trial's adapter cannot be read, None where it can.

    Args:
        folder: the run folder.
        adapter: the trial's adapter, as the store names it.
    """
    if adapter is None or leads_out(folder, adapter) or not (folder / adapter / _CONFIG).is_file():
        return f"its adapter is not in the run folder ({adapter})"
    if not (folder / adapter / _WEIGHTS).is_file():
        return f"its adapter has no {_WEIGHTS}, and no other weights are read ({adapter})"
    return None


def _links(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        here = Path(place)
        yield from (here / name for name in (*folders, *files) if (here / name).is_symlink())
        if here != folder and here.relative_to(folder).parts[0] in _OF_OTHERS:
            # The folder of each tracker counts; what the tracker put there does not.
            folders.clear()
