"""What does a file of scores hold? The form is what ``loratlas score --json`` prints."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loratlas.allocate.checks import is_number
from loratlas.allocate.table import GRANULARITIES, ScoreTable
from loratlas.errors import DataError, did_you_mean
from loratlas.placement.saved import read_json

_FORM = "scores are what `loratlas score STUDY --method M --json` prints"
_KEYS = {
    "method": str,
    "unit": str,
    "higher_is_better": bool,
    "model": str,
    "anatomy_digest": str,
    "cost": dict,
    "scores": list,
}
_MAY_BE_LEFT_OUT = {"settings": dict, "uninformative": list, "notes": list}


def read_scores(file: Path) -> ScoreTable:
    """Read a file of scores; what its numbers are is checked by `check_table`.

    Raises:
        DataError: there is no such file, or it has another form.
    """
    try:
        data = read_json(file)
    except DataError as error:
        raise DataError(f"{error}; {_FORM}") from None
    _check_form(data, file)
    try:
        return ScoreTable.from_json(data)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{file}: holds no scores ({error}); {_FORM}") from None


def _check_form(data: Any, file: Path) -> None:
    if not isinstance(data, Mapping):
        raise DataError(f"{file}: holds a {type(data).__name__}, not scores; {_FORM}")
    _check_kinds(data, file)
    agreement = data.get("agreement")
    if agreement is not None and not is_number(agreement):
        raise DataError(f"{file}: agreement is {agreement!r:.60}, not a number; {_FORM}")
    granularity = data.get("granularity", "site")
    if granularity not in GRANULARITIES:
        raise DataError(
            f"{file}: granularity is {granularity!r:.60}; it is one of {', '.join(GRANULARITIES)}"
        )
    for number, row in enumerate(data["scores"], 1):
        if not isinstance(row, Mapping) or not isinstance(row.get("path"), str):
            raise DataError(f"{file}: score {number} has no path: {row!r:.60}; {_FORM}")
        if "value" not in row:
            raise DataError(f"{file}: the score of {row['path']} has no value; {_FORM}")
        if not isinstance(row.get("curve"), list | None):
            raise DataError(f"{file}: the curve of {row['path']} is no list; {_FORM}")
        if not isinstance(row.get("group"), str | None):
            raise DataError(f"{file}: the group of {row['path']} is no text; {_FORM}")


def _check_kinds(data: Mapping[str, Any], file: Path) -> None:
    for key, kind in (_KEYS | _MAY_BE_LEFT_OUT).items():
        if key in data and not isinstance(data[key], kind):
            raise DataError(f"{file}: {key} is {data[key]!r:.60}, not a {kind.__name__}; {_FORM}")
        if key in _KEYS and key not in data:
            raise DataError(f"{file}: {key} is missing{did_you_mean(key, data)}; {_FORM}")
