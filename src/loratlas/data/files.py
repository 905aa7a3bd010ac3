"""Which rows stand in a local file, and on which line is what cannot be read?

Four kinds of file are read: JSON (a list of objects), JSON Lines, CSV with a header, Parquet.
The readers are written here, on the standard library and pyarrow, because the usual loaders
lose the line: an empty file ends in a bare ``StopIteration`` and mixed types are kept.
"""

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from json import JSONDecodeError, JSONDecoder
from pathlib import Path
from typing import NoReturn

from loratlas.errors import DataError, did_you_mean
from loratlas.paths import leads_out


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row of a source, as it stands there."""

    values: Mapping[str, object]
    """What the row holds, by key."""
    where: str
    """Where a person finds it: ``data.jsonl:17``, or ``gsm8k[train] row 17``, from 1."""
    index: int
    """Place among the rows of its split in the source, from 0."""


def read_file(given: str, *, root: Path) -> tuple[Row, ...]:
    """Read every row of a local file.

    Args:
        given: path as the person wrote it; relative paths start at `root`.
        root: the folder of the study file.

    Raises:
        DataError: there is no such file, its kind is not served, or a line cannot be read. The
            message names file and line.
    """
    path = find_file(given, root=root)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{given}: files that can be read end in {', '.join(_READERS)}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{given}: cannot be read: {error.strerror or error}") from error
    found = list(reader(given, content))
    if not found:
        raise DataError(f"{given}: the file holds no row")
    return tuple(
        Row(values=values, where=where, index=index) for index, (where, values) in enumerate(found)
    )


def find_file(given: str, *, root: Path) -> Path:
    """Return the path of an existing file; the error names the nearest file of its folder.

    A relative path stays in `root`, links on its way included: what a study reads from elsewhere
    can be seen in its file.
    """
    path = root / given
    try:
        if path.is_file():
            if not Path(given).is_absolute() and leads_out(root, given):
                raise DataError(
                    f"{given}: leads out of {root}; a file elsewhere is given by its whole path"
                )
            return path
        if path.is_dir():
            raise DataError(f"{given}: is a folder; name one file of it{_files_in(path)}")
        near = did_you_mean(path.name, _names_in(path.parent))
    except OSError as error:
        raise DataError(f"{given[:80]}: cannot be read: {error.strerror or error}") from error
    raise DataError(f"{given}: no such file in {root}{near}")


def is_data_file(given: str) -> bool:
    """Whether a name ends as a file does that can be read here."""
    return Path(given).suffix.lower() in _READERS


def _names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []


def _files_in(folder: Path) -> str:
    names = [name for name in _names_in(folder) if is_data_file(name)]
    return f": {', '.join(names[:8])}" if names else ""


_Found = Iterator[tuple[str, Mapping[str, object]]]


def _decode(given: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # the codec counts after the byte order mark, a person counts bytes of the file
        at = error.start + (len(content) - len(error.object))
        line = content.count(b"\n", 0, at) + 1
        raise DataError(f"{given}:{line}: not UTF-8 at byte {at}; save the file as UTF-8") from None


def _read_json_lines(given: str, content: bytes) -> _Found:
    # split at \n alone: str.splitlines would also cut at U+2028, which JSON strings may hold
    lines = _decode(given, content).split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{given}:{number}"
        try:
            value = _DECODER.decode(line)
        except (ValueError, RecursionError) as error:
            _refuse_json(where, line, error)
        yield where, _as_object(where, value, line)


def _read_json(given: str, content: bytes) -> _Found:
    text = _decode(given, content)
    start = _skip(text, 0)
    if not text.startswith("[", start):
        # many files named .json hold one object per line
        yield from _read_json_lines(given, content)
        return
    position, line = _skip(text, start + 1), 1 + text.count("\n", 0, start)
    counted = start
    while not text.startswith("]", position):
        line += text.count("\n", counted, position)
        counted = position
        where = f"{given}:{line}"
        try:
            value, end = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            _refuse_json(where, text[position:], error)
        yield where, _as_object(where, value, text[position:end])
        position = _next_element(given, text, end)
    if _skip(text, position + 1) != len(text):
        raise DataError(f"{given}: not valid JSON: something follows the end of the list")


def _next_element(given: str, text: str, end: int) -> int:
    position = _skip(text, end)
    if text.startswith("]", position):
        return position
    following = _skip(text, position + 1)
    if text.startswith(",", position) and not text.startswith("]", following):
        return following
    cut_off = " (the file is cut off?)" if position == len(text) else ""
    line = text.count("\n", 0, position) + 1
    raise DataError(f"{given}:{line}: not valid JSON: expected ] or a comma and a row{cut_off}")


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _refuse_json(where: str, text: str, error: Exception) -> NoReturn:
    if isinstance(error, RecursionError):
        reason, cut_off = "nested too deeply", False
    elif isinstance(error, JSONDecodeError):
        reason = error.msg
        cut_off = reason.startswith("Unterminated") or not text[error.pos :].strip()
    else:
        reason, cut_off = str(error), False
    hint = " (the line is cut off?)" if cut_off else ""
    raise DataError(f"{where}: not valid JSON: {reason}{hint}") from error


def _as_object(where: str, value: object, text: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise DataError(f"{where}: a row must be an object with keys, found {describe(value)}")
    # strict UTF-8 holds no surrogate, so one can only come from a \uD8xx escape
    if "\\ud" in text.lower():
        for key, item in value.items():
            _refuse_surrogates(where, key, key)
            _refuse_surrogates(where, key, item)
    return value


def _refuse_surrogates(where: str, key: str, value: object) -> None:
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            code = f"\\u{ord(value[error.start]):04x}"
            shown = key.encode("ascii", "backslashreplace").decode()
            raise DataError(
                f'{where}: "{shown}" holds the lone surrogate {code} at character {error.start}, '
                "which is half of a character and no text"
            ) from None
    elif isinstance(value, dict):
        for inner_key, inner in value.items():
            _refuse_surrogates(where, key, inner_key)
            _refuse_surrogates(where, key, inner)
    elif isinstance(value, list):
        for inner in value:
            _refuse_surrogates(where, key, inner)


def describe(value: object) -> str:
    """Say in a person's words what a JSON value is, with its content where that is short."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"a number ({value})"
    if isinstance(value, str):
        return f"the text {value[:40]!r}" if value.strip() else "an empty text"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return "an object" if isinstance(value, Mapping) else f"a {type(value).__name__}"


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f'key "{twice}" stands twice in one object')
    return values


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


_DECODER = JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=_no_constant)


def _read_csv(given: str, content: bytes) -> _Found:
    reader = csv.reader(io.StringIO(_decode(given, content), newline=""), strict=True)
    header: list[str] = []
    start = 1
    try:
        for values in reader:
            where, start = f"{given}:{start}", reader.line_num + 1
            if not values:
                continue
            if not header:
                header = _check_header(where, values)
            elif len(values) != len(header):
                raise DataError(
                    f"{where}: {len(values)} values in the row, {len(header)} columns in the header"
                )
            else:
                yield where, dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise DataError(f"{given}:{start}: not valid CSV: {error}") from error


def _check_header(where: str, names: list[str]) -> list[str]:
    for name in names:
        if not name.strip() or names.count(name) > 1:
            problem = f'column "{name}" stands twice' if name.strip() else "a column has no name"
            raise DataError(f"{where}: the first line names the columns, and {problem}")
    return names


def _read_parquet(given: str, content: bytes) -> _Found:
    # pyarrow comes with datasets and is slow to import; only Parquet needs it
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(pyarrow.BufferReader(content)).to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{given}: cannot be read as Parquet: {reason}") from error
    for number, values in enumerate(rows, start=1):
        yield f"{given} row {number}", values


_READERS: dict[str, Callable[[str, bytes], _Found]] = {
    ".jsonl": _read_json_lines,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
