"""Can a base, and a trial on it, be packed? And how is the base opened to a pack?

Whether a base can be taken apart is tried, not looked up (`comparison`): rows one after another
and block by block, then without entering at blocks, then whole rows. Where each of them differs
from the model's own forward pass, trials on this base go to the reference engine.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers.activations import NewGELUActivation
from transformers.pytorch_utils import Conv1D

from loratlas.anatomy.sites import Anatomy, Family, Site
from loratlas.data.masked import Masking
from loratlas.data.rows import TokenizedRow
from loratlas.placement.placement import Placement
from loratlas.train.attention_kind import attention_as
from loratlas.train.base import Base, first_position, quiet
from loratlas.train.dropout import active_dropout
from loratlas.train.packed.attention import NAME, RowAttentionError
from loratlas.train.packed.backbone import Backbone, last_modules
from loratlas.train.packed.batch import Flat, Layout, Whole
from loratlas.train.packed.comparison import difference
from loratlas.train.packed.flow import Flow
from loratlas.train.packed.sites import forward_replaced
from loratlas.train.packed.slots import Slot
from loratlas.train.prefix import PrefixCache

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


def open_base(
    base: Base,
    anatomy: Anatomy,
    rows: Sequence[TokenizedRow],
    masking: Masking | None = None,
) -> PackedBase | str:
    """Return a base taken apart, or why it cannot be.

    Args:
        base: the base.
        anatomy: its anatomy.
        rows: the rows that it will read; the longest are what a model may treat otherwise.
        masking: how training rows are masked, for a masked language model.
    """
    if (reason := refusal(base)) is not None:
        return reason
    sites = [site for site in anatomy.sites if not site.idle and _is_plain(base, site)]
    differs, refused = "", "none of its modules gives the last hidden state"
    for layout, blocks_of, last in _ways(base, anatomy):
        try:
            backbone = Backbone(base.model, blocks_of, last)
            packed = PackedBase(base=base, backbone=backbone, layout=layout)
            found = difference(packed, sites, anatomy, rows, masking)
        except Exception as error:  # whatever a model's own code raises at what it does not know
            refused = f"{type(error).__name__}: {error}".split("\n")[0]
            continue
        if not found:
            return packed
        differs = found
    return f"its forward pass cannot be taken apart: {differs or refused}"


def refusal(base: Base) -> str | None:
    """Return why trials on a base cannot be packed, as far as that is seen without trying."""
    if base.head:
        return "its classification head is trained whole"
    if getattr(base.model.config, "router_jitter_noise", 0):
        return "its router draws noise"
    if dropout := active_dropout(base.model.config):
        return f"the base's own dropout is active ({dropout[0]})"
    return None


def why_not(base: Base, placement: Placement) -> str | None:
    """Return why trials of a placement cannot be packed, or None where they can."""
    for adapter in placement.adapters:
        if not _is_plain(base, adapter.site):
            return f"{adapter.site.path} is no plain linear map"
    if all(adapter.site.idle for adapter in placement.adapters):
        return "tokens pass through none of its sites"
    return None


def _is_plain(base: Base, site: Site) -> bool:
    if site.kind not in _PACKABLE or site.role.family in _APART:
        return False
    # Classes derived from these, such as quantised maps, do something else.
    return type(base.model.get_submodule(site.path)) in (torch.nn.Linear, Conv1D)


def _ways(base: Base, anatomy: Anatomy) -> Iterator[tuple[Layout, Anatomy | None, Any]]:
    """Yield the ways to run a base, the better first: layout, whose blocks, last module."""
    found: list[tuple[Layout, Anatomy | None]] = []
    if base.task in ("causal", "masked"):
        flat = Flat(task=base.task, device=base.device, first_position=first_position(base.model))
        found += [(flat, anatomy), (flat, None)]
    found.append((Whole(collator=base.collator, device=base.device), None))
    for layout, blocks_of in found:
        for last in last_modules(base.model, anatomy):
            yield layout, blocks_of, last


@contextmanager
def _row_attention(model: Any) -> Iterator[None]:
    """Let a model attend row by row for a while."""
    with attention_as(model, NAME) as is_taken:
        if not is_taken:
            raise RowAttentionError("its attention cannot be exchanged")
        yield


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
