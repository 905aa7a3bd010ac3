"""How much of a trained update lies in each rank of each site?

PARA (arXiv 2604.27796) trains a high rank at every site alike, and keeps the singular values of
s·B·A that lie above one threshold for all sites. Here the curve of a site is their squares: what
each rank adds to ‖ΔW‖² in the Frobenius norm. An allocator with a budget in ranks keeps the largest
of them, which is PARA's rule; with one in parameters it weighs them against what a rank costs.
Nothing about training is special.

Adapters are trained by the packed engine where that serves the base, else by PEFT and Trainer.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from loratlas.allocate.table import Granularity
from loratlas.anatomy.sites import Site
from loratlas.data.rows import TokenizedRow
from loratlas.errors import RequestError, TrialError
from loratlas.placement.placement import Adapter, Placement
from loratlas.score.low_rank import Factors, factors_of, squared_curve
from loratlas.score.resampling import halves
from loratlas.score.scorer import Found, Needs, Subject
from loratlas.train.adapters import new_adapters
from loratlas.train.base import quiet
from loratlas.train.packed.fit import fit_pack
from loratlas.train.packed.opening import PackedBase, open_base, why_not
from loratlas.train.packed.passes import Passes
from loratlas.train.packed.slots import Slot
from loratlas.train.prefix import PrefixCache
from loratlas.train.reference import DivergedError, fit, num_steps, steps_per_epoch
from loratlas.train.trial import TrainingSpec


class Para:
    """The spectrum of adapters that were trained at a high rank.

    Args:
        rank: of the adapters, at most what a site can have; None takes the longest curve that is
            asked for.
        learning_rate: peak rate; None takes the middle one of the study's.
        halves: whether each half of the rows is trained on as well, for their agreement; it doubles
            the rows that are read.

    Raises:
        RequestError: the rank is below 1, or the rate not above 0.
    """

    name = "para"
    title = "squared Frobenius norm of the update that training at a high rank gives"
    unit = "‖ΔW‖²"
    higher_is_better = True
    granularity: Granularity = "site"
    needs = Needs(labels=True, gradients=True, training=True)

    def __init__(
        self,
        *,
        rank: int | None = None,
        learning_rate: float | None = None,
        halves: bool = False,
    ) -> None:
        if rank is not None and rank < 1:
            raise RequestError(f"para: rank {rank}: it is at least 1")
        if learning_rate is not None and not learning_rate > 0:
            raise RequestError(f"para: learning_rate {learning_rate}: it is above 0")
        self._rank = rank
        self._learning_rate = learning_rate
        self._halves = halves

    def why_not(self, subject: Subject) -> str | None:  # noqa: ARG002
        """Return None: what can be trained can be scored."""
        return None

    def measure(self, subject: Subject) -> Found:
        """Score the sites.

        Raises:
            TrialError: the training diverged.
        """
        curves = self._curves(subject, subject.rows)
        num_rows = rows_read(subject.training, len(subject.rows))
        notes = [f"trained at rank {self._most(subject)} with rate {self._rate(subject):g}"]
        of_halves = None
        if self._halves:
            parts = [subject.rows[half.start : half.stop] for half in halves(len(subject.rows))]
            of_halves = np.stack([_values(self._curves(subject, part)) for part in parts])
            num_rows += sum(rows_read(subject.training, len(part)) for part in parts)
        else:
            notes.append("halves of the rows were not trained on: the agreement is not known")
        return Found(
            values=_values(curves),
            curves=[curve[: subject.max_rank] for curve in curves],
            halves=of_halves,
            num_forwards=num_rows,
            num_backwards=num_rows,
            notes=tuple(notes),
        )

    def _curves(self, subject: Subject, rows: Sequence[TokenizedRow]) -> list[NDArray[np.float64]]:
        part = replace(subject, rows=rows, indices=None)
        trained = train_alike(part, rank=self._most(subject), learning_rate=self._rate(subject))
        return [squared_curve(trained[site.path]) for site in subject.sites]

    def _most(self, subject: Subject) -> int:
        return subject.max_rank if self._rank is None else self._rank

    def _rate(self, subject: Subject) -> float:
        rates = sorted(subject.training.learning_rate)
        return rates[len(rates) // 2] if self._learning_rate is None else self._learning_rate


def train_alike(subject: Subject, *, rank: int, learning_rate: float) -> dict[str, Factors]:
    """Train one rank at every site of a subject; return the adapters by path.

    Args:
        subject: base, sites, rows, and how they are trained; the scale is that of its `lora` at
            this rank.
        rank: of every site, or the highest that the site can have.
        learning_rate: the peak rate.

    Raises:
        TrialError: the training diverged.
    """
    placement, model = alike(subject, rank), subject.base.model
    with ExitStack() as stack:
        stack.callback(model.train, model.training)
        model.eval()
        with quiet():
            packed = open_base(subject.base, subject.anatomy, subject.rows, subject.masking)
        if isinstance(packed, str) or why_not(subject.base, placement) is not None:
            return _by_reference(subject, placement, learning_rate)
        return _packed(packed, subject, placement, learning_rate)


def alike(subject: Subject, rank: int) -> Placement:
    """Return one rank at every site of a subject, or the highest that the site can have."""
    return Placement(
        anatomy=subject.anatomy,
        adapters=tuple(_adapter(site, rank, subject) for site in subject.sites),
        scaling=subject.lora.scaling,
    )


def rows_read(training: TrainingSpec, num_rows: int) -> int:
    """Return how many rows a trial reads, each visit counted."""
    epochs, steps = divmod(num_steps(training, num_rows), steps_per_epoch(training, num_rows))
    return epochs * num_rows + min(num_rows, steps * training.batch * training.accumulation)


def _adapter(site: Site, rank: int, subject: Subject) -> Adapter:
    possible = min(rank, site.d_in, site.d_out)
    return Adapter(site=site, rank=possible, alpha=subject.lora.alpha_at(possible))


def _packed(
    packed: PackedBase, subject: Subject, placement: Placement, learning_rate: float
) -> dict[str, Factors]:
    base, training = subject.base, subject.training
    dropout = subject.lora.dropout
    slot = Slot.new(placement, seed=subject.seed, dropout=dropout, device=base.device)
    prefix = PrefixCache(base_digest=base.digest, dtype=base.model.dtype, memory_limit=0)
    # A pass holds one micro-batch, as in a person's own training.
    passes = Passes(training.batch * max(row.num_read for row in subject.rows))
    with ExitStack() as stack:
        stack.callback(prefix.close)
        base.model.train()
        flow = stack.enter_context(packed.opened([slot], prefix))
        (outcome,) = fit_pack(
            flow,
            subject.rows,
            training,
            learning_rates=[learning_rate],
            passes=passes,
            masking=subject.masking,
        )
    if isinstance(outcome, DivergedError):
        raise outcome
    _require_finite(slot.values)
    return {
        path: Factors(a=site.a[None].clone(), b=site.b[None].clone(), scale=site.scale)
        for path, site in slot.sites.items()
    }


def _by_reference(
    subject: Subject, placement: Placement, learning_rate: float
) -> dict[str, Factors]:
    base, dropout = subject.base, subject.lora.dropout
    with new_adapters(base, placement, seed=subject.seed, dropout=dropout) as model:
        fit(
            base,
            model,
            subject.rows,
            subject.training,
            learning_rate=learning_rate,
            seed=subject.seed,
            masking=subject.masking,
        )
        found = factors_of(model, placement)
    for factors in found.values():
        _require_finite(factors.a, factors.b)
    return found


def _require_finite(*tensors: torch.Tensor) -> None:
    if not all(torch.isfinite(tensor).all() for tensor in tensors):
        raise TrialError("para: diverged: the trained adapters are no numbers")


def _values(curves: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.array([curve.sum() for curve in curves])
