"""How does one frozen map serve all trials while each trial's adapter sees its own tokens alone?

The frozen product is taken once for all tokens. Then, for each trial that is adapted there, the
tokens of that trial get their own ΔW x = s·B(A x) added in place. The gradient is written out by
hand: adapters' gradients go straight into the vectors of their slot, and the frozen weight, which
has none, costs only the product that passes the gradient on, where somebody below needs it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from transformers.pytorch_utils import Conv1D

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
        step: optimiser step.
        masks: what draws each adapter's dropout in this optimiser step, filled on the way, so that
            a window in several parts draws on; None where nothing is left out, as in scoring.
        anchor: makes outputs need a gradient where their input does not.
    """

    spans: Sequence[Span] = ()
    step: int = 0
    masks: dict[tuple[int, str], torch.Generator] | None = None
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
        for path, here in by_path.items():
            module = model.get_submodule(path)
            stack.enter_context(
                forward_replaced(module, _adapted_forward(module, path, here, routing))
            )
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


def _adapted_forward(
    module: torch.nn.Module, path: str, slots: dict[int, Slot], routing: Routing
) -> Callable[[torch.Tensor], torch.Tensor]:
    original = module.forward
    transposed = isinstance(module, Conv1D)
    weight: Any = module.weight
    bias: Any = module.bias

    def forward(x: torch.Tensor) -> torch.Tensor:
        spans = [span for span in routing.spans if span.slot in slots]
        if not spans:
            return original(x)
        per_unit, rest = divmod(x.numel() // x.shape[-1], routing.total)
        assert rest == 0, f"{path}: {tuple(x.shape)} does not divide into {routing.total} rows"
        members = []
        for span in spans:
            slot, start, stop = slots[span.slot], span.start * per_unit, span.stop * per_unit
            keep = _keep(slot, span.slot, path, (stop - start, x.shape[-1]), routing)
            members.append(_Member(slot.sites[path], start, stop, keep, 1 / (1 - slot.dropout)))
        matrix = weight if transposed else weight.t()
        result: torch.Tensor = _Adapted.apply(x, routing.anchor, matrix, bias, members)
        return result

    return forward


def _keep(
    slot: Slot, number: int, path: str, shape: tuple[int, int], routing: Routing
) -> torch.Tensor | None:
    """Return which inputs of an adapter dropout keeps, or None where it keeps all."""
    if not slot.dropout or routing.masks is None:
        return None
    generator = routing.masks.get((number, path))
    if generator is None:
        generator = routing.masks[number, path] = slot.mask_generator(routing.step, path)
    keep = torch.empty(shape, dtype=torch.bool, device=slot.values.device)
    return keep.bernoulli_(1 - slot.dropout, generator=generator)


class _Adapted(torch.autograd.Function):
    """y = x W + b, and y += s·(x Aᵀ) Bᵀ on each member's tokens."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        anchor: torch.Tensor,  # noqa: ARG004
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        members: Sequence[_Member],
    ) -> torch.Tensor:
        tokens = x.reshape(-1, x.shape[-1])
        y = tokens @ weight if bias is None else torch.addmm(bias, tokens, weight)
        reduced = []
        for member in members:
            u = _inputs(tokens, member) @ member.site.a.to(x.dtype).t()
            y[member.start : member.stop].addmm_(
                u, member.site.b.to(x.dtype).t(), alpha=member.site.scale
            )
            reduced.append(u)
        ctx.save_for_backward(x, weight, *reduced)
        ctx.members = members
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, *reduced = ctx.saved_tensors
        tokens = x.reshape(-1, x.shape[-1])
        dy = gradients[0].reshape(-1, weight.shape[1])
        passed_on = ctx.needs_input_grad[0]
        dx = dy @ weight.t() if passed_on else None
        for member, u in zip(ctx.members, reduced, strict=True):
            site, own = member.site, slice(member.start, member.stop)
            site.grad_b.add_(dy[own].t() @ u, alpha=site.scale)
            du = dy[own] @ (site.b * site.scale).to(x.dtype)
            site.grad_a.add_(du.t() @ _inputs(tokens, member))
            if dx is not None:
                _add_input_gradient(dx[own], du, member)
        return (None if dx is None else dx.view(x.shape)), None, None, None, None


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
