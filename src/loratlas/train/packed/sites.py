"""How does one frozen map serve all trials while each trial's adapter sees its own tokens alone?

The frozen product is taken once for all tokens. Then, for each trial that is adapted there, the
tokens of that trial get their own ΔW x = s·B(A x) added in place. The gradient is written out by
hand: adapters' gradients go straight into the vectors of their slot, and the frozen weight, which
has none, costs only the product that passes the gradient on, where somebody below needs it.
"""

import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from transformers.pytorch_utils import Conv1D

from loratlas.train.packed.masks import Masks
from loratlas.train.packed.slots import Slot, SlotSite


class Span(NamedTuple):
    """Which part of the rows axis belongs to a trial: tokens of a flat batch, else rows."""

    slot: int
    start: int
    stop: int


@dataclass(kw_only=True)
class Routing:
    """Whose tokens a forward pass holds; set before each pass.

    Attributes:
        spans: the trials' parts, in order, without gaps.
        masks: what draws each adapter's dropout in this optimiser step; None where nothing is left
            out, as in scoring.
        anchor: makes outputs need a gradient where their input does not.
    """

    spans: Sequence[Span] = ()
    masks: Masks | None = None
    anchor: torch.Tensor = field(default_factory=lambda: torch.zeros(0, requires_grad=True))

    @property
    def total(self) -> int:
        """Length of the rows axis."""
        return self.spans[-1].stop


class _Member(NamedTuple):
    """One trial's adapter at a site in one pass, on tokens `start` to `stop`."""

    site: SlotSite
    start: int
    stop: int
    keep: torch.Tensor | None
    boost: float


@contextmanager
def adapted(model: torch.nn.Module, slots: Sequence[Slot], routing: Routing) -> Iterator[None]:
    """Let the slots' adapters take part in a model's forward pass for a while."""
    by_path: dict[str, dict[int, Slot]] = {}
    for number, slot in enumerate(slots):
        for path in slot.sites:
            by_path.setdefault(path, {})[number] = slot
    with ExitStack() as stack:
        for path, module in model.named_modules():
            here = by_path.pop(path, {})
            if here or (_is_map(module) and _computes_in(module.weight) != module.weight.dtype):
                forward = _adapted_forward(module, path, here, routing)
                stack.enter_context(forward_replaced(module, forward))
        assert not by_path, f"the model has no module {', '.join(by_path)}"
        yield


@contextmanager
def forward_replaced(module: torch.nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Give one module another forward pass for a while; its class and its weights stay."""
    before = module.__dict__.get("forward")
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        del module.__dict__["forward"]
        if before is not None:
            module.__dict__["forward"] = before


def _is_map(module: torch.nn.Module) -> bool:
    return type(module) in (torch.nn.Linear, Conv1D)


def _computes_in(weight: torch.Tensor) -> torch.dtype:
    """Return the type that products with a frozen weight are taken in.

    A CPU without tiles for bf16 takes bf16 products at half the speed of fp32 ones. There a weight
    is widened for each product, which loses nothing: bf16 products are summed in fp32 as well, and
    the result is rounded to bf16 once.
    """
    on_x86 = weight.device.type == "cpu" and platform.machine() in ("x86_64", "AMD64")
    if weight.dtype is torch.bfloat16 and on_x86 and not torch.cpu._is_amx_tile_supported():
        return torch.float32
    return weight.dtype


def _adapted_forward(
    module: torch.nn.Module, path: str, slots: dict[int, Slot], routing: Routing
) -> Callable[[torch.Tensor], torch.Tensor]:
    original = module.forward
    weight: Any = module.weight
    bias: Any = module.bias
    matrix = weight if isinstance(module, Conv1D) else weight.t()
    compute = _computes_in(weight)

    def forward(x: torch.Tensor) -> torch.Tensor:
        spans = [span for span in routing.spans if span.slot in slots]
        if not spans:
            return original(x) if compute is weight.dtype else product(x, None, ())
        per_unit, rest = divmod(x.numel() // x.shape[-1], routing.total)
        assert rest == 0, f"{path}: {tuple(x.shape)} does not divide into {routing.total} rows"
        members = []
        for span in spans:
            slot, keep = slots[span.slot], None
            if not len(slot.sites[path].a):  # a site that has no column now
                continue
            if slot.dropout and routing.masks is not None:
                units, shape = span.stop - span.start, (per_unit, x.shape[-1])
                keep = routing.masks.keep(slot, span.slot, path, units=units, shape=shape)
            start, stop = span.start * per_unit, span.stop * per_unit
            members.append(_Member(slot.sites[path], start, stop, keep, 1 / (1 - slot.dropout)))
        return product(x, routing.anchor, members)

    def product(
        x: torch.Tensor, anchor: torch.Tensor | None, members: Sequence[_Member]
    ) -> torch.Tensor:
        # Shaped out here: what a function returns as a view cannot be changed in place.
        tokens = x.reshape(-1, x.shape[-1])
        y: torch.Tensor = _Adapted.apply(tokens, anchor, matrix, bias, members, compute)  # type: ignore[no-untyped-call]
        return y.view(*x.shape[:-1], -1)

    return forward


class _Adapted(torch.autograd.Function):
    """y = x W + b, and y += s·(x Aᵀ) Bᵀ on each member's tokens; x is (tokens, d_in)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        anchor: torch.Tensor | None,  # noqa: ARG004
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        members: Sequence[_Member],
        compute: torch.dtype,
    ) -> torch.Tensor:
        tokens = x.to(compute)
        wide = weight.to(compute)
        y = tokens @ wide if bias is None else torch.addmm(bias.to(compute), tokens, wide)
        reduced = []
        for member in members:
            u = _inputs(tokens, member) @ member.site.a.to(compute).t()
            y[member.start : member.stop].addmm_(
                u, member.site.b.to(compute).t(), alpha=member.site.scale
            )
            reduced.append(u)
        ctx.save_for_backward(x if members else None, weight, *reduced)
        ctx.members, ctx.compute = members, compute
        return y.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, *reduced = ctx.saved_tensors
        dy = gradients[0].to(ctx.compute)
        dx = dy @ weight.to(ctx.compute).t() if ctx.needs_input_grad[0] else None
        tokens: Any = None if x is None else x.to(ctx.compute)
        for member, u in zip(ctx.members, reduced, strict=True):
            site, own = member.site, slice(member.start, member.stop)
            site.grad_b.add_(dy[own].t() @ u, alpha=site.scale)
            du = dy[own] @ (site.b * site.scale).to(ctx.compute)
            site.grad_a.add_(du.t() @ _inputs(tokens, member))
            if dx is not None:
                _add_input_gradient(dx[own], du, member)
        dx = None if dx is None else dx.to(gradients[0].dtype)
        return dx, None, None, None, None, None


def _inputs(tokens: torch.Tensor, member: _Member) -> torch.Tensor:
    """Return what a member's A reads, after dropout."""
    own = tokens[member.start : member.stop]
    return own if member.keep is None else own * member.keep * member.boost


def _add_input_gradient(dx: torch.Tensor, du: torch.Tensor, member: _Member) -> None:
    """Add what a member's adapter passes on to its input, in place."""
    a = member.site.a.to(du.dtype)
    if member.keep is None:
        dx.addmm_(du, a)
    else:
        dx.add_((du @ a) * member.keep * member.boost)
