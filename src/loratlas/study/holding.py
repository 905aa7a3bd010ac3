"""Whose is a run folder while a run goes on? It has one writer, and that one holds it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from loratlas.study.folder import check_identity, make_folder, open_folder, version_for
from loratlas.study.lock import only_controller
from loratlas.study.spec import StudySpec
from loratlas.study.store import Store


class Held(NamedTuple):
    """A run folder that is held.

    Attributes:
        folder: where it is.
        store: its records, for writing.
    """

    folder: Path
    store: Store


Hold = Callable[[Mapping[str, Any]], AbstractContextManager[Held]]
"""Holds the folder of a run, given what the run is made from; it refuses a folder of another."""


@contextmanager
def held(
    folder: Path, study: StudySpec, identity: Mapping[str, Any], *, new_version: bool = False
) -> Iterator[Held]:
    """Hold a run folder for a study.

    Args:
        folder: the folder that was asked for; made when it is missing.
        study: the study.
        identity: what the run is made from.
        new_version: whether a folder of another study is left alone and one beside it is taken.

    Raises:
        RunFolderError: it holds another study, is held by another process, or cannot be written.
    """
    if new_version:
        folder = version_for(folder, identity)
    check_identity(folder, identity)
    make_folder(folder)
    with only_controller(folder):
        store = open_folder(folder, study, identity)
        try:
            yield Held(folder, store)
        finally:
            store.close()
