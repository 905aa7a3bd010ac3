"""What does a file of scores hold? The form is what ``loratlas score --json`` prints."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loratlas.allocate.table import GRANULARITIES, ScoreTable
from loratlas.errors import DataError, did_you_mean

_FORM = "scores are what `loratlas score STUDY --method M --json` prints"
_KEYS: Mapping[str, type] = {
    "method": str,
    "unit": str,
    "higher_is_better": bool,
    "model": str,
    "anatomy_digest": str,
    "cost": dict,
    "scores": list,
}


def read_scores(file: Path) -> ScoreTable:
    """Read a file of scores; what its numbers are is checked by `check_table`.

    Raises:
        DataError: there is no such file, or it has another form.
    """
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = did_you_mean(file.name, (other.name for other in file.parent.glob("*.json")))
        raise DataError(f"{file}: there is no such file{near}; {_FORM}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: cannot be read as JSON: {error}; {_FORM}") from None
    _check_form(data, file)
    try:
        return ScoreTable.from_json(data)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{file}: holds no scores ({error}); {_FORM}") from None


def _check_form(data: Any, file: Path) -> None:
    if not isinstance(data, Mapping):
        raise DataError(f"{file}: holds a {type(data).__name__}, not scores; {_FORM}")
    for key, kind in _KEYS.items():
        if key not in data:
            raise DataError(f"{file}: {key} is missing{did_you_mean(key, data)}; {_FORM}")
        if not isinstance(data[key], kind):
            raise DataError(f"{file}: {key} is {data[key]!r:.60}, not a {kind.__name__}; {_FORM}")
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
