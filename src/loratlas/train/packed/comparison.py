"""Does a base that was taken apart compute what it computes whole?

Held against the model's own forward pass over one row at a time: all rows in one pass, block by
block; the loss; and adapters, of which those of one trial must leave what another computes as it
is. The model is in training mode for it, as it will be.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from loratlas.anatomy.sites import Anatomy, Family, Site
from loratlas.data.masked import Masking
from loratlas.data.rows import TokenizedRow, frozen_marks
from loratlas.placement.placement import Adapter, Placement
from loratlas.train import randomness
from loratlas.train.base import Base
from loratlas.train.packed.batch import Whole
from loratlas.train.packed.flow import Flow, Unit
from loratlas.train.packed.loss import backward, scored_spans
from loratlas.train.packed.slots import Slot
from loratlas.train.prefix import PrefixCache

if TYPE_CHECKING:
    from loratlas.train.packed.opening import PackedBase

# Relative to the largest logit: sums of a few thousand products in another order. In bf16 each of
# them is rounded to 8 bits, layer after layer.
_ALLOWED = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
# Of a loss taken twice from the same logits.
_SAME_LOSS = 1e-5
_FIRST = 3
"""Tokens at the beginning of a row that are predicted, too."""
_SHORT = 8
"""Tokens of the rows that adapters are tried on."""


def difference(
    packed: "PackedBase",
    sites: Sequence[Site],
    anatomy: Anatomy,
    rows: Sequence[TokenizedRow],
    masking: Masking | None,
) -> str:
    """Return how a base taken apart differs from the same base whole; empty where it does not.

    Args:
        packed: the base, taken apart.
        sites: where adapters are tried.
        anatomy: of the base.
        rows: some of the rows that it will read.
        masking: how they are masked, for a masked language model.
    """
    tried = _tried(packed.base, rows, masking)
    with _in_training(packed.base.model), torch.no_grad():
        return _of_base(packed, tried) or _of_adapters(
            packed, sites, anatomy, [_shortened(row) for row in (tried[0], tried[-1])]
        )


def _of_base(packed: "PackedBase", rows: Sequence[TokenizedRow]) -> str:
    """Compare rows in one pass, block by block, with rows one by one."""
    alone = [_alone(packed.base, row) for row in rows]
    for logits, wanted, loss in alone:
        own = torch.nn.functional.cross_entropy(logits.float(), wanted)
        if loss is not None and not abs(float(loss - own)) <= _SAME_LOSS * float(own):
            return "its loss is not that of its predictions alone"
    with packed.opened([], _no_prefix(packed.base)) as flow:
        found = flow.logits(flow.bare(rows), ())
    return _further(found, torch.cat([logits for logits, *_ in alone]), "its logits differ by")


def _alone(base: Base, row: TokenizedRow) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Return what the model itself makes of a row: logits, what they predict, and its own loss.

    Only a causal model's own loss is what the reference engine trains with.
    """
    layout = Whole(collator=base.collator, device=base.device)
    inputs = layout.inputs([row])
    if base.task == "causal":
        inputs["labels"] = base.collator([row])["labels"].to(base.device)
    outputs = base.model(**inputs)
    targets = layout.targets([row])
    return outputs.logits.flatten(0, 1)[targets.place], targets.wanted, outputs.get("loss")


def _of_adapters(
    packed: "PackedBase", sites: Sequence[Site], anatomy: Anatomy, rows: Sequence[TokenizedRow]
) -> str:
    """Compare trials with fresh adapters with the bare base, then beside what must not move them.

    Fresh adapters compute nothing: trials with them at all sites, and one with them in the highest
    block, which enters by the prefix, give what the base gives. They give the same bits when the
    first of them gets adapters that do much, and so does a row beside another one.
    """
    if not sites:
        return ""
    highest = max(site.layer or 0 for site in sites)
    above = [site for site in sites if site.layer == highest]
    slots = [_slot(packed.base, anatomy, some) for some in (sites, sites, above or sites)]
    share = _share_allowed(packed.base, anatomy)
    with packed.opened(slots, _no_prefix(packed.base)) as flow:
        bare = flow.logits(flow.bare(rows), ())
        fresh = _by_slot(flow, rows)
        _make_loud(slots[0])
        moved = _by_slot(flow, rows)
        beside = flow.logits(flow.bare([_turned(rows[0]), *rows[1:]]), ())
    others = slice(rows[0].num_scored, None)
    compared = [
        *((each, bare, "its logits differ by", 1.0) for each in fresh),
        *(
            (after, before, "one trial's adapters change another's logits by", share)
            for after, before in zip(moved[1:], fresh[1:], strict=True)
        ),
        (beside[others], bare[others], "one row changes another's logits by", share),
    ]
    return next(filter(None, (_further(*each) for each in compared)), "")


def _share_allowed(base: Base, anatomy: Anatomy) -> float:
    """Return how much of the rounding that is allowed may come from other values beside a row.

    Products of one shape give a row the same bits whatever the others hold. How many tokens an
    expert gets at once, however, depends on all of them.
    """
    if any(site.role.family in (Family.EXPERT, Family.ROUTER) for site in anatomy.sites):
        return 1.0
    return 0.0 if base.device.type == "cpu" else 0.01


def _by_slot(flow: Flow, rows: Sequence[TokenizedRow]) -> list[torch.Tensor]:
    """Return the logits of each slot; backward is run, too, for what it may refuse."""
    units = [Unit(number, rows) for number in range(len(flow.slots))]
    num_scored = dict.fromkeys(range(len(units)), sum(row.num_scored for row in rows))
    with torch.enable_grad():
        flow.begin_step(0)
        passed = flow.passed(units)
        backward(flow, passed, num_scored)
    spans = sorted(scored_spans(passed))
    return [flow.logits(passed.hidden[span.start : span.stop].detach(), [span]) for span in spans]


def _further(found: torch.Tensor, wanted: torch.Tensor, sentence: str, share: float = 1.0) -> str:
    """Return a sentence with the largest difference of logits, empty where that is rounding."""
    largest = float((found - wanted).abs().max())
    allowed = share * _ALLOWED[wanted.dtype] * float(wanted.abs().max())
    return "" if largest <= allowed else f"{sentence} {largest:.2g}"


def _tried(base: Base, rows: Sequence[TokenizedRow], masking: Masking | None) -> list[TokenizedRow]:
    """Return a few rows of different lengths, the longest among them, as training has them."""
    by_length = sorted(rows, key=lambda row: row.num_read)
    tried = [by_length[0], by_length[len(rows) // 4], by_length[-1]]
    if masking is not None:
        tried = [
            masking.corrupt(row, randomness.masks(0, 0, place)) if row.masked is None else row
            for place, row in enumerate(tried)
        ]
    return [_scored_at_first(base, row) for row in tried]


def _scored_at_first(base: Base, row: TokenizedRow) -> TokenizedRow:
    """Return a row whose first tokens are predicted, too; a causal model never predicts the first.

    What reaches from one row into the next is seen best there.
    """
    scored = row.scored.copy()
    begin = 1 if base.task == "causal" else 0
    scored[begin : begin + _FIRST] = True
    return replace(row, scored=frozen_marks(scored))


def _shortened(row: TokenizedRow) -> TokenizedRow:
    """Return the beginning of a row."""
    return replace(
        row,
        ids=row.ids[:_SHORT],
        scored=row.scored[:_SHORT],
        source=None if row.source is None else row.source[:_SHORT],
        masked=None if row.masked is None else row.masked[:_SHORT],
    )


def _turned(row: TokenizedRow) -> TokenizedRow:
    """Return a row whose tokens stand the other way round."""
    return replace(
        row,
        ids=row.ids[::-1],
        source=None if row.source is None else row.source[::-1],
        masked=None if row.masked is None else row.masked[::-1],
    )


def _slot(base: Base, anatomy: Anatomy, sites: Sequence[Site]) -> Slot:
    """Return fresh adapters of rank 1."""
    adapters = tuple(Adapter(site=site, rank=1, alpha=1.0) for site in sites)
    placement = Placement(anatomy=anatomy, adapters=adapters, scaling="constant")
    return Slot.new(placement, seed=0, dropout=0.0, device=base.device)


def _make_loud(slot: Slot) -> None:
    """Let adapters add about a third of what they read."""
    chance = torch.Generator().manual_seed(0)
    for site in slot.sites.values():
        site.b.copy_(torch.rand(site.b.shape, generator=chance) * 2 - 1)


def _no_prefix(base: Base) -> PrefixCache:
    return PrefixCache(base_digest="", dtype=next(base.model.parameters()).dtype, memory_limit=0)


@contextmanager
def _in_training(model: Any) -> Iterator[None]:
    before = model.training
    model.train()
    try:
        yield
    finally:
        model.train(before)
