"""How are the gradients of bare parameters seen: those of stacked experts, and of routers?

What such a parameter reads shows at no module's door, so its gradient is formed. One row goes
through the model at a time; as soon as a parameter's gradient is complete it is handed over and
dropped. Experts that a row does not reach have a gradient of zero.

Where transformers computes all experts of a layer at once, no two complete gradients are held.
Where it takes them one after another (`eager`), autograd adds up what each has for the whole
parameter, and on the way holds two tensors of that size for each parameter of the layer. They are
autograd's own, and no test here sees them.

How many tokens each expert was sent is read where its module is called: from the indices of the
chosen experts, or from the numbers of tokens by expert.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from loratlas.anatomy.sites import Site
from loratlas.score.capture import Passing, Seen, Visit, reads_source
from loratlas.score.row_gradients import Formed
from loratlas.score.sample import holder_of
from loratlas.score.scorer import Subject


@contextmanager
def tapped_parameters(subject: Subject, visit: Visit) -> Iterator[list["ParameterTap"]]:
    """Let the subject's bare parameters ask for gradients for a while, and watch them."""
    taps: list[ParameterTap] = []
    with ExitStack() as stack:
        for number, site in enumerate(subject.sites):
            if site.kind == "expert":
                module, name = holder_of(subject.base.model, site)
                parameter = getattr(module, name)
                tap = ParameterTap(number, site, visit, is_transposed(module, parameter, site))
                stack.enter_context(_asking(parameter))
                for handle in (
                    module.register_forward_pre_hook(tap.on_forward, with_kwargs=True),
                    parameter.register_post_accumulate_grad_hook(tap.on_gradient),
                ):
                    stack.callback(handle.remove)
                taps.append(tap)
        yield taps


def is_transposed(module: Any, parameter: torch.Tensor, site: Site) -> bool | None:
    """Return whether a parameter's matrices are (d_in, d_out); None where nothing tells.

    Transformers marks the modules of experts whose matrices are. Square ones tell nothing by
    themselves, and their norms and singular values do not depend on it.
    """
    if site.d_in != site.d_out:
        return tuple(parameter.shape[-2:]) == (site.d_in, site.d_out)
    marked = getattr(module, "is_transposed", None)
    return marked if isinstance(marked, bool) else None


@dataclass(eq=False)
class ParameterTap:
    """Watches one parameter.

    Attributes:
        number: of the site among the subject's.
        site: what is watched.
        visit: told of each row.
        transposed: whether the parameter's matrices are (d_in, d_out).
        routed: tokens that each expert was sent so far; None where that is not known, and where
            a parameter holds one map.
    """

    number: int
    site: Site
    visit: Visit
    transposed: bool | None
    routed: torch.Tensor | None = None
    _passing: Passing | None = None
    _num_tokens: int | None = None

    def begin(self, passing: Passing) -> None:
        """Get ready for a pass of one row."""
        self._passing = passing
        self._num_tokens = None

    def finish(self) -> None:
        """Do nothing: a gradient is handed over when it is complete."""

    def on_forward(
        self,
        module: Any,  # noqa: ARG002
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        """Count the tokens that experts are sent."""
        counts = _counts((*args, *kwargs.values()), self.site.num_experts)
        if counts is not None:
            self._num_tokens = (self._num_tokens or 0) + int(counts.sum())
            self.routed = counts if self.routed is None else self.routed + counts

    @torch.no_grad()
    def on_gradient(self, parameter: torch.Tensor) -> None:
        """Hand over the gradient of a row and drop it."""
        assert self._passing is not None, f"{self.site.path}: a gradient outside of a pass"
        assert parameter.grad is not None
        weight = parameter.grad.reshape(-1, *parameter.shape[-2:])
        parameter.grad = None
        read = self._passing.source if reads_source(self.site) else self._passing.target
        count = read.present.shape[1] if self._num_tokens is None else self._num_tokens
        self.visit(
            Seen(
                site=self.number,
                rows=self._passing.rows,
                num_tokens=self._passing.rows.new_tensor([count]),
                gradients=Formed(weight=weight.mT if self.transposed else weight),
            )
        )


@contextmanager
def _asking(parameter: torch.nn.Parameter) -> Iterator[None]:
    """Let one parameter ask for a gradient, and give it back as it was."""
    asked, gradient = parameter.requires_grad, parameter.grad
    parameter.requires_grad_(True)
    parameter.grad = None
    try:
        yield
    finally:
        parameter.requires_grad_(asked)
        parameter.grad = gradient


def _counts(given: tuple[Any, ...], num_experts: int | None) -> torch.Tensor | None:
    """Return the tokens that each expert is sent in a call, shape (experts,), on the CPU."""
    if num_experts is None:
        return None
    for value in given:
        if isinstance(value, torch.Tensor) and not value.is_floating_point() and value.dim() == 2:
            # Places that are left free stand for an expert beyond the last.
            return torch.bincount(value.flatten().cpu(), minlength=num_experts)[:num_experts]
        if isinstance(value, list | tuple) and len(value) == num_experts:
            return torch.tensor([int(count) for count in value])
    return None
