"""Which rows does a study name: a data set of the hub, local files, or a bundled task?"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from loratlas.data.files import Row, find_file, is_data_file, read_file
from loratlas.data.spec import DataSpec
from loratlas.errors import DataError, did_you_mean

SplitName = Literal["train", "validation", "test"]
SPLIT_NAMES: tuple[SplitName, ...] = get_args(SplitName)

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
_FILE_NAME = re.compile(r"[^/]*\.[A-Za-z]\w{0,6}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """The rows of a source by split; `train` is always there and never empty."""

    name: str
    """The source as the study names it."""
    splits: Mapping[SplitName, tuple[Row, ...]]
    """Rows by split, in the order of the source."""
    names: Mapping[SplitName, str]
    """What to call each split in a message: a file, or ``gsm8k[test]``."""
    unused: tuple[str, ...] = ()
    """Splits of the source that have another name and are not read."""


def read_source(spec: DataSpec, *, root: Path) -> Source:
    """Read every row that a study's data section names.

    Args:
        spec: the data section.
        root: folder that relative paths start at, the one of the study file.

    Raises:
        DataError: the source cannot be found or read; the message names the file and line, or
            what is allowed and the nearest name.
    """
    if (spec.source is None) == (not spec.files):
        raise DataError("data: give exactly one of a source and files by split")
    if spec.source is None:
        return _from_files(spec.files, root=root)
    if spec.source.startswith("demo:"):
        return _from_demo(spec.source)
    if _is_file(spec.source, root=root):
        return _from_files({"train": spec.source}, root=root)
    return _from_hub(spec, root=root)


def _is_file(source: str, *, root: Path) -> bool:
    """Whether a source means a file; one slash at most and no file ending may mean the hub."""
    if is_data_file(source) or not _HUB_NAME.fullmatch(source):
        return True
    return (root / source).exists() or _FILE_NAME.fullmatch(source) is not None


def _from_files(files: Mapping[str, str], *, root: Path) -> Source:
    for split in files:
        if split not in SPLIT_NAMES:
            raise DataError(
                f"data: no split is named {split}{did_you_mean(split, SPLIT_NAMES)}; "
                f"files may be given for {', '.join(SPLIT_NAMES)}"
            )
    if "train" not in files:
        raise DataError("data: the files by split lack train")
    named = {split: files[split] for split in SPLIT_NAMES if split in files}
    for given in named.values():
        find_file(given, root=root)  # a missing test file is said before train is read
    rows = {split: read_file(given, root=root) for split, given in named.items()}
    return Source(name=", ".join(named.values()), splits=rows, names=named)


def _from_demo(name: str) -> Source:
    task = name.removeprefix("demo:")
    # the bundled world is built on demand; a study of other data does not pay for it
    from loratlas.data.demo import tasks

    return _from_mappings(name, {split: tasks.rows(task, split) for split in SPLIT_NAMES})


def _from_hub(spec: DataSpec, *, root: Path) -> Source:
    name = str(spec.source)
    # datasets takes a second to import, and only a hub name needs it
    import datasets
    from datasets import packaged_modules

    # A reader of its own would be given whatever lies in the current folder.
    if name in packaged_modules._PACKAGED_DATASETS_MODULES:
        raise DataError(f"{name}: is a kind of file, and no data set; name the file itself")
    try:
        loaded = datasets.load_dataset(name, spec.config, revision=spec.revision)
    # the library raises a dozen unrelated types (its own, OSError, ValueError, those of the
    # HTTP client); whatever it was, the request ends here and its first line says why
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        near = did_you_mean(name, sorted(entry.name for entry in root.glob("*")))
        raise DataError(
            f"{name}: neither a file in {root}{near} nor a data set that the hub gave: {reason}"
        ) from error
    if "train" not in loaded:
        raise DataError(f"{name}: has no split named train; it has {', '.join(map(str, loaded))}")
    found = {split: loaded[split] for split in SPLIT_NAMES if split in loaded}
    unused = tuple(sorted(str(split) for split in loaded if split not in SPLIT_NAMES))
    return _from_mappings(name, found, unused=unused)


def _from_mappings(
    name: str,
    splits: Mapping[SplitName, Sequence[Mapping[str, object]]],
    *,
    unused: tuple[str, ...] = (),
) -> Source:
    names: dict[SplitName, str] = {split: f"{name}[{split}]" for split in splits}
    rows = {
        split: tuple(
            Row(values=values, where=f"{names[split]} row {index + 1}", index=index)
            for index, values in enumerate(found)
        )
        for split, found in splits.items()
        if len(found)
    }
    if "train" not in rows:
        raise DataError(f"{name}: its split train holds no row")
    return Source(name=name, splits=rows, names=names, unused=unused)
