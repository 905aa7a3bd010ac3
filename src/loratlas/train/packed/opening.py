"""Can a base, and a trial on it, be packed? And how is the base opened to a pack?

Whether a base can be taken apart is tried, not looked up: a few rows are run flat, and what they
give is held against the model's own forward pass over each of them. Where that differs, whole
rows are tried; where that differs, too, trials on this base go to the reference engine.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers.activations import NewGELUActivation
from transformers.pytorch_utils import Conv1D

from loratlas.anatomy.sites import Anatomy, Family
from loratlas.data.rows import TokenizedRow
from loratlas.placement.placement import Adapter, Placement
from loratlas.train.base import Base, first_position, quiet
from loratlas.train.dropout import active_dropout
from loratlas.train.packed.attention import NAME
from loratlas.train.packed.backbone import Backbone
from loratlas.train.packed.batch import Flat, Layout, Whole
from loratlas.train.packed.flow import Flow
from loratlas.train.packed.sites import forward_replaced
from loratlas.train.packed.slots import Slot
from loratlas.train.prefix import PrefixCache

# Relative to the largest logit: sums of a few thousand products in another order. In bf16 each of
# them is rounded to 8 bits, layer after layer.
_ALLOWED = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
_PACKABLE = {"linear", "conv1d"}
_APART = {Family.EXPERT, Family.ROUTER, Family.EMBEDDING}


@dataclass(frozen=True, kw_only=True, eq=False)
class PackedBase:
    """A base that packs can be run on.

    Attributes:
        base: the base.
        backbone: its model, taken apart.
        layout: how rows are laid out.
    """

    base: Base
    backbone: Backbone
    layout: Layout

    @contextmanager
    def opened(self, slots: Sequence[Slot], prefix: PrefixCache) -> Iterator[Flow]:
        """Put the adapters of a pack into the base for a while."""
        model = self.base.model
        flow = Flow(model, self.backbone, self.layout, slots, prefix)
        with ExitStack() as stack:
            # Flat rows have no padding, which transformers would like to be told of.
            stack.enter_context(quiet())
            if isinstance(self.layout, Flat):
                stack.enter_context(_row_attention(model))
            stack.enter_context(_fused_gelu(model))
            stack.enter_context(flow.opened())
            yield flow


def open_base(base: Base, anatomy: Anatomy, rows: Sequence[TokenizedRow]) -> PackedBase | str:
    """Return a base taken apart, or why it cannot be.

    Args:
        base: the base.
        anatomy: its anatomy.
        rows: some of the rows that it will read.
    """
    if base.head:
        return "its classification head is trained whole"
    if getattr(base.model.config, "router_jitter_noise", 0):
        return "its router draws noise"
    if dropout := active_dropout(base.model.config):
        return f"the base's own dropout is active ({dropout[0]})"
    tried = _tried(rows)
    reason = ""
    for packed in _ways(base, anatomy):
        try:
            reason = _difference(packed, tried)
        except Exception as error:  # whatever a model's own code raises at what it does not know
            reason = f"{type(error).__name__}: {error}".split("\n")[0]
        if not reason:
            return packed
    return f"its forward pass cannot be taken apart: {reason}"


def why_not(base: Base, placement: Placement) -> str | None:
    """Return why trials of a placement cannot be packed, or None where they can."""
    for adapter in placement.adapters:
        module = None if _is_apart(adapter) else base.model.get_submodule(adapter.site.path)
        # Classes derived from these, such as quantised maps, do something else.
        if type(module) not in (torch.nn.Linear, Conv1D):
            return f"{adapter.site.path} is no plain linear map"
    return None


def _is_apart(adapter: Adapter) -> bool:
    return adapter.site.kind not in _PACKABLE or adapter.site.role.family in _APART


def _ways(base: Base, anatomy: Anatomy) -> Iterator[PackedBase]:
    """Yield the ways to run a base, the better first."""
    if base.task in ("causal", "masked"):
        layout = Flat(task=base.task, device=base.device, first_position=first_position(base.model))
        yield PackedBase(base=base, backbone=Backbone(base.model, anatomy), layout=layout)
    whole = Whole(collator=base.collator, device=base.device)
    yield PackedBase(base=base, backbone=Backbone(base.model, None), layout=whole)


def _tried(rows: Sequence[TokenizedRow]) -> list[TokenizedRow]:
    """Return a few rows of different lengths, the longest among them."""
    by_length = sorted(rows, key=lambda row: row.num_read)
    return [by_length[0], by_length[len(rows) // 4], by_length[-1]]


@torch.no_grad()
def _difference(packed: PackedBase, rows: Sequence[TokenizedRow]) -> str:
    """Return how rows in one pass differ from rows run one by one; empty where they do not."""
    base = packed.base
    wanted = torch.cat([_alone(base, row) for row in rows])
    nothing = PrefixCache(base_digest="", dtype=wanted.dtype, memory_limit=0)
    with packed.opened([], nothing) as flow:
        found = flow.logits(flow.bare(rows), ())
    largest = float((found - wanted).abs().max())
    allowed = _ALLOWED[wanted.dtype] * float(wanted.abs().max())
    return "" if largest <= allowed else f"its logits differ by {largest:.2g}"


def _alone(base: Base, row: TokenizedRow) -> torch.Tensor:
    """Return the logits of what is predicted of a row, as the model gives them."""
    layout = Whole(collator=base.collator, device=base.device)
    logits: torch.Tensor = base.model(**layout.inputs([row])).logits
    return logits.flatten(0, 1)[layout.targets([row]).place]


@contextmanager
def _row_attention(model: Any) -> Iterator[None]:
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextmanager
def _fused_gelu(model: Any) -> Iterator[None]:
    """Compute GPT-2's GELU in one operation, as torch has it, instead of eight."""

    def forward(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.gelu(x, approximate="tanh")

    with ExitStack() as stack:
        for module in model.modules():
            if type(module) is NewGELUActivation:
                stack.enter_context(forward_replaced(module, forward))
        yield
