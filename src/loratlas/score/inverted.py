"""What comes of a method's scores turned upside down? If as much, the scores did not matter.

Values only change their owners: the best site gets the value and the curve of the worst, the second
those of the second to last, and so on. Without ties the values are those of the method, and the
allocator sees numbers of the same size. Sites of one value stay together; so if three sites shared
the best value and one had the worst, then three have the worst now. A curve is cut where the site
that gets it can have no more ranks.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from loratlas.score.scorer import Found, Scorer, Subject


class Inverted:
    """Another method's scores, in the opposite order."""

    def __init__(self, scorer: Scorer) -> None:
        self.name = f"inverted:{scorer.name}"
        self.title = f"{scorer.title}, each site with the value of its opposite in rank"
        self.unit = scorer.unit
        self.higher_is_better = scorer.higher_is_better
        self.granularity = scorer.granularity
        self.needs = scorer.needs
        self._scorer = scorer

    def why_not(self, subject: Subject) -> str | None:
        """Return why the method that is inverted cannot score this."""
        return self._scorer.why_not(subject)

    def measure(self, subject: Subject) -> Found:
        """Score the sites by the method, then exchange the scores.

        Raises:
            TrialError: as for the method.
        """
        found = self._scorer.measure(subject)
        donors = opposites(found.values)
        return Found(
            values=found.values[donors],
            stderr=None if found.stderr is None else found.stderr[donors],
            curves=None if found.curves is None else _taken(found.curves, donors, subject),
            halves=None
            if found.halves is None
            else np.stack([half[opposites(half)] for half in found.halves]),
            num_tokens=found.num_tokens,
            num_forwards=found.num_forwards,
            num_backwards=found.num_backwards,
            # Sites that they name have another's score now.
            notes=tuple(f"Of {self._scorer.name} itself: {note}" for note in found.notes),
        )


def opposites(values: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return from which site each site takes its score, shape (sites,).

    Ranks are those among distinct values, so that sites of one value, as of one type, stay
    together; of several sites with the value that is taken, the first gives it. In the middle a
    site keeps its own.

    Args:
        values: shape (sites,).
    """
    _, first, rank = np.unique(values, return_index=True, return_inverse=True)
    donors = first[::-1][rank]
    kept: NDArray[np.intp] = np.where(values[donors] == values, np.arange(len(values)), donors)
    return kept


def _taken(
    curves: Sequence[NDArray[np.float64] | None], donors: NDArray[np.intp], subject: Subject
) -> list[NDArray[np.float64] | None]:
    """Return the donors' curves, no longer than the rank that each site can have."""
    longest = [min(site.d_in, site.d_out) for site in subject.sites]
    taken = [curves[donor] for donor in donors]
    return [
        None if curve is None else curve[:most] for curve, most in zip(taken, longest, strict=True)
    ]
