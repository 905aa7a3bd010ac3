"""What a run folder holds, and whether it belongs to the study that is asked for.

::

    RUN/
      study.yaml        the study file as it was when the run began
      run.sqlite        trials, scores of every row, probes, placements
      run.log           tracebacks of failed trials
  checkpoints/      the state of the trials that are under way; gone when the run is done
      adapters/NAME/    one folder a trial, in PEFT's format
"""

import itertools
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loratlas.errors import RunFolderError, did_you_mean
from loratlas.study.inside import refuse_links_out
from loratlas.study.lock import LOCK_NAME
from loratlas.study.spec import StudySpec
from loratlas.study.store import FILE_NAME, NEW_NAME, Store

_IDENTITY = "identity"
_MOST_SHOWN = 4
_LEFT_BY_A_KILL = {LOCK_NAME, NEW_NAME, f"{NEW_NAME}-journal"}
"""What a process that was killed before it had a store may leave behind."""


def default_folder(study: StudySpec) -> Path:
    """Return the folder of a run when none is given: runs/NAME where one stands."""
    return Path("runs") / study.name


def check_folder(folder: Path) -> None:
    """Refuse a folder that cannot hold a run, before any work is spent on it.

    Raises:
        RunFolderError: it is a file, or holds something that is no run.
    """
    try:
        if folder.is_symlink() and not folder.exists():
            raise RunFolderError(f"{folder}: a link that leads nowhere")
        if folder.exists() and not folder.is_dir():
            raise RunFolderError(f"{folder}: is a file; a run needs a folder")
        held = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be looked at: {error.strerror}") from error
    if held - _LEFT_BY_A_KILL and FILE_NAME not in held:
        raise RunFolderError(
            f"{folder}: holds files that are no run ({FILE_NAME} is missing); "
            "give an empty or a new folder with --out"
        )


def check_identity(folder: Path, identity: Mapping[str, Any]) -> None:
    """Refuse a folder whose run is of another study, base or data; an empty one is fine.

    Raises:
        RunFolderError: what the run was made from is not what is asked for now.
    """
    found = _changed(folder, identity)
    if not found:
        return
    # What a rule resolves to differs where the rule does; it is news only by itself.
    differences = [line for line in found if not line.startswith("resolved.")] or found
    shown = "; ".join(differences[:_MOST_SHOWN])
    more = f"; and {len(differences) - _MOST_SHOWN} more" if len(differences) > _MOST_SHOWN else ""
    raise RunFolderError(
        f"{folder}: holds another study: {shown}{more}; give another folder with --out, "
        "or leave this one as it is and begin beside it with --new-version"
    )


def version_for(folder: Path, identity: Mapping[str, Any]) -> Path:
    """Return where a changed study begins: the first of FOLDER, FOLDER-v2, ... that it may use.

    That is the one that holds its run already, or else the first that holds none.
    """
    for number in itertools.count(1):
        version = folder if number == 1 else folder.with_name(f"{folder.name}-v{number}")
        check_folder(version)
        if not _changed(version, identity):
            return version
    raise AssertionError("numbers do not end")


def make_folder(folder: Path) -> None:
    """Make the run folder if it is missing.

    Raises:
        RunFolderError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be made: {error.strerror}") from error


def open_folder(folder: Path, study: StudySpec, identity: Mapping[str, Any]) -> Store:
    """Return the store of a run folder that is held, for writing.

    Raises:
        RunFolderError: it cannot be written, or holds another study.
    """
    check_identity(folder, identity)
    store = Store(folder / FILE_NAME, writable=True)
    store.set_meta(_IDENTITY, dict(identity))
    try:
        shutil.copyfile(study.path, folder / "study.yaml.partial")
        (folder / "study.yaml.partial").rename(folder / "study.yaml")
    except OSError as error:
        store.close()
        raise RunFolderError(f"{folder}: cannot be written: {error.strerror}") from error
    return store


def open_run(folder: Path) -> Store:
    """Return the store of a run that is there.

    Raises:
        RunFolderError: there is none, or it holds links that lead out of it.
    """
    try:
        if folder.is_file():
            raise RunFolderError(f"{folder}: is a file; give the run folder")
        if not folder.is_dir():
            raise RunFolderError(f"{folder}: no such run folder{_runs_nearby(folder)}")
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be looked at: {error.strerror}") from error
    refuse_links_out(folder)
    return Store(folder / FILE_NAME)


def _runs_nearby(folder: Path) -> str:
    parent = folder.parent
    if not parent.is_dir():
        return ""
    runs = sorted(path.name for path in parent.iterdir() if (path / FILE_NAME).is_file())
    near = did_you_mean(folder.name, runs)
    return f"{near}; in {parent} there is: {', '.join(runs)}" if runs else ""


def _changed(folder: Path, identity: Mapping[str, Any]) -> list[str]:
    """Return in words how the run in a folder, if there is one, differs from what is asked for."""
    if not (folder / FILE_NAME).is_file():
        return []
    store = Store(folder / FILE_NAME)
    try:
        kept = store.meta(_IDENTITY)
    finally:
        store.close()
    return [] if kept is None else _differences(kept, identity)


def _differences(kept: Any, asked: Any, key: str = "") -> list[str]:
    """Return in words where two trees of plain data differ."""
    if not (isinstance(kept, Mapping) and isinstance(asked, Mapping)):
        return [] if kept == asked else [f"{key} was {kept}, now {asked}"]
    found = []
    for name in [*kept, *(name for name in asked if name not in kept)]:
        inner = f"{key}.{name}" if key else str(name)
        if name not in asked:
            found.append(f"{inner} is no longer there")
        elif name not in kept:
            found.append(f"{inner} is new")
        else:
            found += _differences(kept[name], asked[name], inner)
    return found
