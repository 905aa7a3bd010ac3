"""What is the mean of something measured at every token, and how far would other rows move it?"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from loratlas.errors import TrialError
from loratlas.score.resampling import halves

Floats = NDArray[np.float64]


class TokenMeans:
    """Means over the tokens of rows, of several quantities; every token weighs the same.

    Args:
        groups: of the quantities, such as the role of the site that each is measured at. A quantity
            that is measured nowhere, as at an expert that no token is sent to, takes the mean of
            its group.
        num_rows: rows that are read, at least two.
    """

    def __init__(self, groups: Sequence[str], num_rows: int) -> None:
        self._groups = np.array(groups)
        self._sums = np.zeros((len(groups), num_rows))
        self._counts = np.zeros((len(groups), num_rows))

    @property
    def num_tokens(self) -> NDArray[np.int64]:
        """Tokens that each mean was taken from, shape (quantities,)."""
        counts: NDArray[np.int64] = self._counts.sum(1).astype(np.int64)
        return counts

    def add(self, quantity: int, rows: NDArray[np.int64], values: Floats) -> None:
        """Take in what was measured at tokens of some rows, each of shape (tokens,)."""
        num_rows = self._sums.shape[1]
        self._sums[quantity] += np.bincount(rows, values, minlength=num_rows)
        self._counts[quantity] += np.bincount(rows, minlength=num_rows)

    def means(self) -> Floats:
        """Return the means over all rows, shape (quantities,).

        Raises:
            TrialError: nothing was measured of a whole group.
        """
        return self._over(range(self._sums.shape[1]))

    def of_halves(self) -> Floats:
        """Return the means over either half of the rows, shape (2, quantities).

        Raises:
            TrialError: nothing was measured of a whole group in one of them.
        """
        return np.stack([self._over(half) for half in halves(self._sums.shape[1])])

    def stderr(self, weights: Floats) -> Floats:
        """Return standard errors over rows of weighted sums of the means.

        A mean over tokens is a ratio of two sums over rows; what each row adds to it is taken to
        first order (the delta method), so that long rows weigh more and rows stay whole.

        Args:
            weights: shape (sums, quantities).

        Returns:
            shape (sums,); NaN where nothing was measured.
        """
        num_rows = self._sums.shape[1]
        measured = self._counts.any(1)
        apart = self._sums - self.means()[:, None] * self._counts
        added = weights @ (apart / np.where(measured, self._counts.mean(1), 1)[:, None])
        spread = np.square(added).sum(1) / (num_rows * (num_rows - 1))
        errors: Floats = np.where((weights != 0) @ measured, np.sqrt(spread), np.nan)
        return errors

    def _over(self, rows: range) -> Floats:
        counts = self._counts[:, rows.start : rows.stop].sum(1)
        sums = self._sums[:, rows.start : rows.stop].sum(1)
        means: Floats = sums / np.where(counts, counts, 1)
        for quantity in np.flatnonzero(counts == 0):
            group = self._groups[quantity]
            others = (self._groups == group) & (counts > 0)
            if not others.any():
                raise TrialError(
                    f"{group}: there is nothing to measure in {len(rows)} rows: it reads no token "
                    "of them, or zeros alone"
                )
            means[quantity] = means[others].mean()
        return means
