"""Was the learning rate swept far enough?

A best rate at the edge of a sweep says that a better one may lie beyond it, and that placements
whose optimum lies inside are compared with one whose optimum does not.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Edge = Literal["lowest", "highest"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """Where the best rate of a placement lies among those tried.

    Attributes:
        placement: its name.
        best: the rate with the lowest validation loss, the lower rate of a tie; None where no
            rate has a loss that is a number.
        edge: which end of the sweep it is, None inside, with one rate, or without a best.
        says: what a person should know, empty where all is well.
    """

    placement: str
    best: float | None
    edge: Edge | None
    says: tuple[str, ...]


def sweep(placement: str, losses: Mapping[float, float | None]) -> Sweep:
    """Look at the learning rates of one placement.

    Args:
        placement: its name.
        losses: mean validation loss over the seeds of the sweep by rate, nats per token; None
            or no number where a trial diverged or failed.

    Returns:
        the best rate and whether it is at an edge. A rate that diverged is no neighbour: the
        optimum below it is bracketed by it, because beyond lies no better loss.
    """
    ended = {
        rate: loss
        for rate, loss in sorted(losses.items())
        if loss is not None and math.isfinite(loss)
    }
    if not ended:
        said = f"{placement}: no learning rate has a validation loss."
        return Sweep(placement=placement, best=None, edge=None, says=(said,))
    best = min(ended, key=lambda rate: ended[rate])
    edge = _edge(best, sorted(losses))
    said_of_edge = () if edge is None else (_beyond(placement, best, edge),)
    return Sweep(
        placement=placement,
        best=best,
        edge=edge,
        says=(*said_of_edge, *_lost(placement, losses, ended), *_tied(placement, best, ended)),
    )


def _edge(best: float, rates: list[float]) -> Edge | None:
    if len(rates) == 1:
        return None
    return "lowest" if best == rates[0] else "highest" if best == rates[-1] else None


def _beyond(placement: str, best: float, edge: Edge) -> str:
    which = "lower" if edge == "lowest" else "higher"
    return (
        f"{placement}: the best learning rate, {best:g}, is the {edge} of the sweep; "
        f"a {which} one may be better still."
    )


def _lost(
    placement: str, losses: Mapping[float, float | None], ended: Mapping[float, float]
) -> tuple[str, ...]:
    lost = ", ".join(f"{rate:g}" for rate in sorted(losses) if rate not in ended)
    return (f"{placement}: no validation loss at {lost}.",) if lost else ()


def _tied(placement: str, best: float, ended: Mapping[float, float]) -> tuple[str, ...]:
    tied = [rate for rate, loss in ended.items() if loss == ended[best] and rate != best]
    if not tied:
        return ()
    others = ", ".join(f"{rate:g}" for rate in tied)
    return (f"{placement}: {best:g} and {others} tie; the lowest is taken.",)
