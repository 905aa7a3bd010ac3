"""How do a subject's rows go through the model and back, so that every site's gradient is seen?

Rows of about one length go together, filled up to the longest; a row's own loss is the sum of -ln p
over what is scored of it, with the model's logits in fp32, so that Σ_n G_n / Σ_n scored_n is the
gradient of the loss that training descends. Nothing depends on which rows go together beyond
rounding: rows do not see each other, and padding has no say. Where rows could not be told apart
(stacked experts, maps that get an expert's tokens only), they go one by one.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from loratlas.anatomy.sites import Family
from loratlas.data.rows import TokenizedRow
from loratlas.errors import TrialError
from loratlas.score.capture import (
    Passing,
    RowsMixedError,
    Seen,
    Tap,
    Tokens,
    Visit,
    tapped_maps,
)
from loratlas.score.experts import ParameterTap, tapped_parameters
from loratlas.score.sample import Sample
from loratlas.score.scored_head import ScoredHead
from loratlas.score.scorer import Subject
from loratlas.train.base import Base
from loratlas.train.packed.batch import Whole

# Fewer tokens than this take about as long: what a pass costs by itself outweighs them.
_FEW_TOKENS = 512


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """What went through.

    Attributes:
        num_tokens: tokens whose gradient was seen at each site, shape (sites,); of experts those
            that were sent to one.
        expert_tokens: tokens that each expert of a site was sent; None where they were not counted.
        num_experts: experts whose tokens were counted, whatever number of parameters each has.
        num_idle: those of them that no token was sent to.
    """

    num_tokens: NDArray[np.int64]
    expert_tokens: Sequence[Sequence[int] | None]
    num_experts: int
    num_idle: int


def read_backward(subject: Subject, sample: Sample, visit: Visit) -> Reading:
    """Send the rows of a sample through the model and back; the base stays as it is.

    Args:
        subject: what is scored.
        sample: its rows.
        visit: told of each site in each pass; a row comes to a site once.

    Raises:
        TrialError: a loss is no number.
    """
    num_tokens = torch.zeros(len(subject.sites), dtype=torch.int64, device=subject.base.device)

    def count_and_visit(seen: Seen) -> None:
        num_tokens[seen.site] += seen.num_tokens.sum()
        visit(seen)

    model = subject.base.model
    with ExitStack() as stack, torch.enable_grad():
        stack.callback(model.train, model.training)
        model.eval()
        head = ScoredHead(subject)
        maps = stack.enter_context(tapped_maps(subject, count_and_visit))
        experts = stack.enter_context(tapped_parameters(subject, count_and_visit))
        stack.enter_context(head.opened())
        passes = _Passes(subject.base, head, sample.rows, (*maps, *experts))
        for indices in batches(sample.rows, _size(subject)):
            passes.run(indices)
    return _reading(num_tokens, experts)


def rows_of_a_pass(subject: Subject) -> int:
    """Return how many rows go through together first, which are the longest ones."""
    return len(next(batches(subject.rows, _size(subject))))


def batches(rows: Sequence[TokenizedRow], size: int) -> Iterator[list[int]]:
    """Yield the numbers of rows that go together, longest first: memory is asked for once.

    Short rows go with more than `size` of their like, unless each is to go by itself.
    """
    order = sorted(range(len(rows)), key=lambda index: -rows[index].num_read)
    while order:
        many = size if size == 1 else max(size, _FEW_TOKENS // rows[order[0]].num_read)
        yield order[:many]
        order = order[many:]


def _size(subject: Subject) -> int:
    """Return the rows of a pass; where a map would mix them, one."""
    alone = any(
        site.kind == "expert" or site.role.family is Family.EXPERT for site in subject.sites
    )
    return 1 if alone else subject.batch


def _reading(num_tokens: torch.Tensor, taps: Sequence[ParameterTap]) -> Reading:
    by_site = {tap.number: tap.routed.tolist() for tap in taps if tap.routed is not None}
    # The parameters of one module are sent the same tokens.
    by_module = {tap.site.path.rpartition(".")[0]: tap.routed for tap in taps}
    routed = [counts for counts in by_module.values() if counts is not None]
    return Reading(
        num_tokens=num_tokens.cpu().numpy(),
        expert_tokens=[by_site.get(number) for number in range(len(num_tokens))],
        num_experts=sum(len(counts) for counts in routed),
        num_idle=sum(int((counts == 0).sum()) for counts in routed),
    )


class _Passes:
    """Sends rows forward and backward."""

    def __init__(
        self, base: Base, head: ScoredHead, rows: Sequence[TokenizedRow], taps: Sequence[Tap]
    ) -> None:
        self._base = base
        self._head = head
        self._rows = rows
        self._taps = taps
        self._layout = Whole(collator=base.collator, device=base.device)

    def run(self, indices: Sequence[int]) -> None:
        """Send rows through together, or one by one where a map would mix them."""
        try:
            losses = self._losses(indices)
        except RowsMixedError:
            for index in indices:
                self.run([index])
            return
        # Where tokens reach none of the sites, there is no way back.
        if losses.requires_grad:
            torch.autograd.backward(losses.sum())
        for tap in self._taps:
            tap.finish()

    def _losses(self, indices: Sequence[int]) -> torch.Tensor:
        """Return -ln p of what is scored of the rows, shape (scored,)."""
        rows = [self._rows[index] for index in indices]
        inputs = self._layout.inputs(rows)
        passing = self._passing(indices, rows)
        for tap in self._taps:
            tap.begin(passing)
        logits, wanted, owner = self._predictions(rows, inputs)
        losses = torch.nn.functional.cross_entropy(logits.float(), wanted, reduction="none")
        if not bool(torch.isfinite(losses).all()):
            first = rows[int(owner[~torch.isfinite(losses).to(owner.device)][0])]
            raise TrialError(f"the loss of training row {first.row} is no number: nothing to score")
        return losses

    def _predictions(
        self, rows: Sequence[TokenizedRow], inputs: dict[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return logits (scored, classes), what should be predicted, and in which row it stands."""
        if self._base.task == "classification":
            wanted = torch.tensor([row.label for row in rows], device=self._base.device)
            return self._base.model(**inputs).logits, wanted, torch.arange(len(rows))
        targets = self._layout.targets(rows)
        return self._head.logits(inputs, targets.place), targets.wanted, targets.row

    def _passing(self, indices: Sequence[int], rows: Sequence[TokenizedRow]) -> Passing:
        device = self._base.device
        read = [len(row.ids if row.source is None else row.source) for row in rows]
        source = _tokens(read, device)
        target = source if rows[0].source is None else _tokens([len(r.ids) for r in rows], device)
        return Passing(torch.tensor(indices, device=device), source, target)


def _tokens(lengths: Sequence[int], device: torch.device) -> Tokens:
    """Return where tokens are that are filled up on the right."""
    places = torch.arange(max(lengths), device=device)
    present = places < torch.tensor(lengths, device=device)[:, None]
    return Tokens(present, padded=len(set(lengths)) > 1)
