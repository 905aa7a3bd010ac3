"""Are these scores numbers, and are they of this model?"""

from collections import Counter
from math import isfinite
from typing import Any

from loratlas.allocate.table import ScoreTable, SiteScore
from loratlas.anatomy.sites import Anatomy
from loratlas.errors import DataError, PlacementError, did_you_mean


def check_table(table: ScoreTable, anatomy: Anatomy) -> None:
    """Check scores against the model that they are to place adapters in.

    Raises:
        DataError: there is no score, two of one site, one that is no finite number, or values of
            groups that do not say of which.
        PlacementError: the scores are of another model.
    """
    if not table.scores:
        raise DataError(f"the table by {table.method} holds no score")
    path, count = Counter(score.path for score in table.scores).most_common(1)[0]
    if count > 1:
        raise DataError(f"the table by {table.method} holds {count} scores of {path}")
    for score in table.scores:
        _check_numbers(score)
        if table.granularity == "group" and score.group is None:
            raise DataError(
                f"the scores by {table.method} are values of groups, and that of {score.path} does "
                "not say of which; score again"
            )
    _check_model(table, anatomy)


def _check_numbers(score: SiteScore) -> None:
    if not is_number(score.value):
        raise DataError(f"the score of {score.path} is {score.value!r:.60}, not a finite number")
    if score.curve is None:
        return
    for rank, value in enumerate(score.curve, 1):
        if not is_number(value):
            raise DataError(
                f"the score of {score.path} is {value!r:.60} at rank {rank} of its curve, not a "
                "finite number"
            )
    if not score.curve:
        raise DataError(f"the curve of {score.path} is empty; without one it is null")


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number, and no truth value."""
    numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
    # An integer may have more digits than a float can hold.
    return numeric and abs(value) < 10**308 and isfinite(value)


def _check_model(table: ScoreTable, anatomy: Anatomy) -> None:
    missing = [score.path for score in table.scores if score.path not in anatomy.by_path]
    if missing:
        raise PlacementError(
            f"{len(missing)} of {len(table.scores)} scored sites are not in {anatomy.model}, "
            f"first {missing[0]}{did_you_mean(missing[0], anatomy.by_path)}; the scores are of "
            f"{table.model}"
        )
    if table.anatomy_digest != anatomy.digest:
        raise PlacementError(
            f"the scores are of {table.model} with digest {table.anatomy_digest[:12]}, and "
            f"{anatomy.model} has digest {anatomy.digest[:12]}: other sites or other shapes; "
            "score this model"
        )
