"""Does a scorer put first what is known to matter? Precision at k, and places.

Where a signal was planted at k sites, a scorer that finds it gives these the k highest values.
Sites of one value are a tie, which the order of the model must not decide: a precision is the mean
over all ways to break ties, and chance alone has k over the number of sites.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from loratlas.allocate.agreement import Floats


def precision(values: Floats, wanted: NDArray[np.bool_]) -> float:
    """Return the share of the highest values that are at wanted sites; as many as are wanted.

    Args:
        values: larger for what comes first, shape (sites,).
        wanted: which sites should come first, at least one, shape (sites,).

    Returns:
        from 0 to 1; ties at the border count with the share of them that would be taken.
    """
    count = int(wanted.sum())
    border = np.sort(values)[-count]
    above, tied = values > border, values == border
    taken = (count - above.sum()) / tied.sum()
    return float((wanted[above].sum() + taken * wanted[tied].sum()) / count)


def places(values: Floats, wanted: Sequence[int]) -> list[int]:
    """Return the place of some sites by their values, from 1; sites of one value share the best.

    Args:
        values: larger for what comes first, shape (sites,).
        wanted: indices of the sites.
    """
    return [1 + int((values > values[index]).sum()) for index in wanted]
