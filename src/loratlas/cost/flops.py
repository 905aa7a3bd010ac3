"""How many floating-point operations does an optimiser step take, by placement?

With L blocks of width d and 12 d^2 weights, vocabulary V, rows of T tokens; K blocks from the
lowest adapted one upward; S the sum of d_in + d_out over adapted sites; P' the frozen weights of
the lowest adapted block downstream of its lowest adapted site; A' = 1 if that site is at or
before attention, else 0:

    forward  = 2T(12 L d^2 + V d) + 4L T^2 d + 2T r S
    backward = 2T(V d + 12 (K-1) d^2 + P') + 8(K-1+A') T^2 d + 4T r S - 2T r d_in(first)

That is the whole of it for GPT-2; ``tests/cost/test_flops.py`` holds the count against it. The
account behind `step_flops` (`blocks`, `maps`) comes to the same sum from the roles of the sites,
and so for gated, grouped-query, two-stack and expert models too. It is our own derivation, held
against ``torch.utils.flop_counter.FlopCounterMode``.

Known discrepancies: only matrix products count, as there. Fused attention computes the scores
once more on the way back, which neither counts (its counter says 0 for them on a CPU). Tables
of positions are taken to be looked up once for all rows, which matters only where they carry an
adapter.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from loratlas.cost.setting import Workload


@dataclass(frozen=True, kw_only=True, slots=True)
class StepFlops:
    """Operations of an optimiser step on average, padding included."""

    forward: float
    backward: float

    @property
    def total(self) -> float:
        """Both ways."""
        return self.forward + self.backward


def step_flops(found: Mapping[tuple[str, bool], int], workload: Workload) -> StepFlops:
    """Return the operations of an optimiser step from those of its largest micro-batch.

    Maps grow with the tokens, attention with the pairs of tokens, and what experts' adapters
    add to their weights with neither. With two stacks all micro-batches have one shape.

    Args:
        found: operations of one pass, by (growth, whether backward).
        workload: the rows.
    """
    largest = workload.rows * workload.tokens
    times = {
        "token": workload.tokens_per_step / largest,
        "pair": workload.pairs_per_step / (largest * workload.tokens),
        "fixed": workload.passes,
    }
    sums = {
        backward: sum(n * times[growth] for (growth, way), n in found.items() if way is backward)
        for backward in (False, True)
    }
    return StepFlops(forward=sums[False], backward=sums[True])
