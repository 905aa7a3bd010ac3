"""How often is any of several verdicts wrong by chance?"""

from collections.abc import Sequence


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p values adjusted over a family by S. Holm's step-down method (1979).

    The chance that any true hypothesis of the family is rejected is at most the level, however
    the tests depend on one another.

    Args:
        p_values: one a question of the family; None for one that was not asked, which takes
            no part.

    Returns:
        adjusted values in the order given, None where None was given.
    """
    asked = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(asked):
        largest = max(largest, min(1.0, (len(asked) - rank) * p))
        adjusted[place] = largest
    return adjusted
