"""What should a person know of scores that were taken from gradients?"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from loratlas.score.backward import Reading
from loratlas.score.sample import Sample
from loratlas.score.scorer import Subject
from loratlas.score.slices import Slices

_FEW = 0.1


def remarks(
    subject: Subject,
    sample: Sample,
    slices: Slices,
    reading: Reading,
    values: NDArray[np.float64],
) -> tuple[str, ...]:
    """Return what holds for every gradient scorer, in sentences."""
    return (
        *_on_rows(subject, sample),
        *_on_sites(subject, slices, reading),
        *_on_values(values),
    )


def concentration(values: NDArray[np.float64]) -> Iterator[str]:
    """Say how few sites hold how much of a sum, for values that ranks could follow."""
    num_few = max(1, round(_FEW * len(values)))
    if len(values) <= num_few or not values.any():
        return
    share = np.sort(values)[-num_few:].sum() / values.sum()
    yield (
        f"The {num_few} of {len(values)} sites with the largest values hold {share:.0%} of their "
        "sum: ranks in proportion to them would go to few sites."
    )


def _on_rows(subject: Subject, sample: Sample) -> Iterator[str]:
    if sample.num_left_out:
        yield f"Left out: {sample.num_left_out} of {len(subject.rows)} rows predict nothing."
    if subject.base.head:
        yield "The classification head is new, so that gradients pass through random weights."


def _on_sites(subject: Subject, slices: Slices, reading: Reading) -> Iterator[str]:
    unreached = [
        site.path
        for site, count in zip(subject.sites, reading.num_tokens, strict=True)
        if not count
    ]
    if unreached:
        yield (
            f"No gradient reaches {len(unreached)} of {len(subject.sites)} sites, first "
            f"{unreached[0]}: their value is 0."
        )
    if reading.num_idle:
        yield (
            f"{reading.num_idle} of {reading.num_experts} experts were sent no token and count "
            "as 0."
        )
    if slices.unknown:
        yield (
            f"{len(slices.unknown)} fused sites, first {slices.unknown[0]}: which outputs are "
            "which part does not show, so that there is one value for the whole."
        )


def _on_values(values: NDArray[np.float64]) -> Iterator[str]:
    if not values.any():
        yield "Every gradient is zero: these scores prefer no site."
