"""What a saved placement file holds: sites of this model, each with a rank and an alpha.

The form is what ``place --json`` and ``allocate`` write:
``{"placement": [{"path", "rank", "alpha"}, ...], ...}``; other keys are not looked at.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from loratlas.anatomy.sites import Anatomy
from loratlas.errors import DataError, PlacementError, did_you_mean
from loratlas.paths import leads_out
from loratlas.placement.expressions import File

MOST_RANK = 65_536
"""No map of any model has a rank above it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedAdapter:
    """One line of a saved placement."""

    path: str
    rank: int
    alpha: float


def read_saved(file: File, *, root: Path, anatomy: Anatomy) -> Mapping[str, SavedAdapter]:
    """Read the placement file that a rule names; return its adapters by path.

    A relative path starts from `root` and stays in it, links on its way included.

    Raises:
        PlacementError: there is no such file, it has another form, or it names a site that
            the model does not have.
    """
    _refuse_elsewhere(file, root)
    try:
        data = read_json(root / file.path)
    except DataError as error:
        raise PlacementError(f"{file}: {error}") from None
    return read_adapters(data, where=str(file), anatomy=anatomy)


def read_json(file: Path) -> Any:
    """Return what a file of JSON holds.

    Raises:
        DataError: there is no such file, or it is no JSON.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = did_you_mean(file.name, (other.name for other in file.parent.glob("*.json")))
        raise DataError(f"{file}: there is no such file{near}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: cannot be read as JSON: {error}") from None


def _refuse_elsewhere(file: File, root: Path) -> None:
    place = root / file.path
    try:
        is_there = place.is_file()
    except OSError:  # whoever reads it says why not
        return
    if is_there and not Path(file.path).is_absolute() and leads_out(root, file.path):
        raise PlacementError(
            f"{file}: leads out of {root.absolute()}; a file elsewhere is given by its whole path"
        )


def read_adapters(data: Any, *, where: str, anatomy: Anatomy) -> Mapping[str, SavedAdapter]:
    """Check saved adapters against a model; `where` begins every message.

    Raises:
        PlacementError: the data have another form, or name a site that is not there.
    """
    rows = data.get("placement") if isinstance(data, Mapping) else None
    if not isinstance(rows, list) or not rows:
        raise PlacementError(
            f"{where} holds no placement; it is written "
            '{"placement": [{"path": ..., "rank": ..., "alpha": ...}]}'
        )
    adapters = [_read_row(row, where) for row in rows]
    by_path = {adapter.path: adapter for adapter in adapters}
    if len(by_path) < len(adapters):
        twice = next(a.path for a in adapters if by_path[a.path] is not a)
        raise PlacementError(f"{where} names {twice} twice")
    _check_paths(by_path, where, anatomy)
    return by_path


def _read_row(row: Any, where: str) -> SavedAdapter:
    given = row if isinstance(row, Mapping) else {}
    path, rank, alpha = (given.get(key) for key in ("path", "rank", "alpha"))
    if not isinstance(path, str) or not _is_rank(rank) or not _is_alpha(alpha):
        raise PlacementError(
            f"{where}: an adapter has a path, a rank from 1 to {MOST_RANK} and a positive alpha, "
            f"not {row!r:.200}"
        )
    return SavedAdapter(path=path, rank=rank, alpha=alpha)


def _is_rank(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_RANK


def _is_alpha(value: Any) -> TypeGuard[float]:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # An integer may have more digits than a float can hold; NaN is in no range.
    return is_number and 0 < value <= sys.float_info.max


def _check_paths(paths: Mapping[str, SavedAdapter], where: str, anatomy: Anatomy) -> None:
    missing = [path for path in paths if path not in anatomy.by_path]
    if missing:
        raise PlacementError(
            f"{where}: {len(missing)} of {len(paths)} sites are not in {anatomy.model}, "
            f"first {missing[0]}{did_you_mean(missing[0], anatomy.by_path)}"
        )
