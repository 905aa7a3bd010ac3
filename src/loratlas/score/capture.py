"""How are the gradients at a model's maps seen while it runs backward, its weights frozen?

A hook on each map keeps what it reads; when the loss gradient at its output arrives, both are
handed over and dropped. No weight asks for a gradient. The outputs of the maps that come first do,
so that the way back ends there. A map that is called more than once in a pass is handed over with
the tokens of all its calls, since its gradient is their sum.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch

from loratlas.anatomy.sites import Family, Site
from loratlas.errors import TrialError
from loratlas.score.row_gradients import Factored, RowGradients
from loratlas.score.sample import holder_of
from loratlas.score.scorer import Subject


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Seen:
    """One site in one pass.

    Attributes:
        site: its number among the subject's sites.
        rows: numbers of the rows, shape (rows,).
        num_tokens: tokens of each row that went through, padding left out, shape (rows,).
        gradients: of each row.
        input_energies: computes Σ_t‖x_t‖² of each row, shape (rows,); None where inputs are not
            seen.
    """

    site: int
    rows: torch.Tensor
    num_tokens: torch.Tensor
    gradients: RowGradients
    input_energies: Callable[[], torch.Tensor] | None = None


Visit = Callable[[Seen], None]


class Tokens(NamedTuple):
    """Where the tokens of a pass are.

    Attributes:
        present: False at padding, shape (rows, tokens).
        padded: whether there is any padding.
    """

    present: torch.Tensor
    padded: bool


class Passing(NamedTuple):
    """The rows of a pass.

    Attributes:
        rows: their numbers, shape (rows,).
        source: what an encoder reads, where there is one.
        target: what a decoder reads; the same as `source` where there is one text alone.
    """

    rows: torch.Tensor
    source: Tokens
    target: Tokens


class RowsMixedError(Exception):
    """A map reads several rows in a way that does not show which token is whose."""


class Tap(Protocol):
    """What watches one site."""

    def begin(self, passing: Passing) -> None:
        """Get ready for a pass."""

    def finish(self) -> None:
        """Hand over what the way back has left."""


@contextmanager
def tapped_maps(subject: Subject, visit: Visit) -> Iterator[list[Tap]]:
    """Watch the subject's maps for a while; no hook is left, whatever happens."""
    taps: list[Tap] = []
    with ExitStack() as stack:
        for number, site in enumerate(subject.sites):
            if site.kind == "expert":
                continue
            module, _ = holder_of(subject.base.model, site)
            tap = _MapTap(number, site, visit)
            handle = module.register_forward_hook(tap.on_forward, with_kwargs=True)
            stack.callback(handle.remove)
            taps.append(tap)
        yield taps


def reads_source(site: Site) -> bool:
    """Whether a site of an encoder-decoder model sees the encoder's tokens."""
    crossing = site.role.family is Family.CROSS_ATTENTION and site.role.part in ("k", "v", "kv")
    return site.stack == "encoder" or crossing


def by_row(features: torch.Tensor, tokens: Tokens) -> torch.Tensor | None:
    """Return features as (rows, tokens, width), or None where rows cannot be told apart.

    Models hand them to a map as (rows, tokens, width), flat as (rows·tokens, width), or with one
    place in each row, as to a classifier.
    """
    num_rows, num_tokens = tokens.present.shape
    if num_rows == 1:
        return features.reshape(1, -1, features.shape[-1])
    if features.dim() == 2 and len(features) == num_rows * num_tokens:
        return features.reshape(num_rows, num_tokens, -1)
    if len(features) == num_rows:
        return features.reshape(num_rows, -1, features.shape[-1])
    return None


@dataclass(eq=False)
class _Call:
    """One call of a map.

    Attributes:
        inputs: what it read, shape (rows, tokens, d_in).
        version: how often that had been written to.
        tokens: where its tokens are; None where each of its places counts.
        delta: gradient at its output, once it is there.
    """

    inputs: torch.Tensor
    version: int
    tokens: Tokens | None
    delta: torch.Tensor | None = None

    @property
    def num_tokens(self) -> torch.Tensor:
        """Tokens of each row, shape (rows,)."""
        if self.tokens is None:
            num_rows, num_places = self.inputs.shape[:2]
            return torch.full((num_rows,), num_places, device=self.inputs.device)
        return self.tokens.present.sum(1)

    @property
    def deltas(self) -> torch.Tensor:
        """Gradients at the output, shape (rows, tokens, d_out), zero at padding."""
        assert self.delta is not None
        deltas = self.delta.reshape(*self.inputs.shape[:2], -1)
        return deltas if self._absent is None else deltas.masked_fill(self._absent[..., None], 0)

    @property
    def input_energies(self) -> torch.Tensor:
        """Σ_t‖x_t‖² of each row."""
        squares = self.inputs.float().square().sum(2)
        return (squares if self._absent is None else squares.masked_fill(self._absent, 0)).sum(1)

    @property
    def _absent(self) -> torch.Tensor | None:
        return ~self.tokens.present if self.tokens is not None and self.tokens.padded else None


@dataclass(eq=False)
class _MapTap:
    """Watches one map."""

    number: int
    site: Site
    visit: Visit
    passing: Passing | None = None
    calls: list[_Call] = field(default_factory=list)
    num_awaited: int = 0

    def begin(self, passing: Passing) -> None:
        self.passing = passing
        self.calls.clear()
        self.num_awaited = 0

    def on_forward(
        self,
        module: Any,  # noqa: ARG002
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        output: torch.Tensor,
    ) -> torch.Tensor:
        call = self._call((args or tuple(kwargs.values()))[0].detach())
        if not output.requires_grad:
            # Not the leaf itself: what reads the output may change it in place.
            output = output.detach().requires_grad_().clone()
        output.register_hook(partial(self._on_backward, call))  # type: ignore[no-untyped-call]
        self.calls.append(call)
        self.num_awaited += 1
        return output

    def _call(self, inputs: torch.Tensor) -> _Call:
        assert self.passing is not None, f"{self.site.path}: called outside of a pass"
        tokens = self.passing.source if reads_source(self.site) else self.passing.target
        divided = by_row(inputs, tokens)
        if divided is None:
            raise RowsMixedError(self.site.path)
        everywhere = divided.shape[1] == tokens.present.shape[1]
        return _Call(divided, divided._version, tokens if everywhere else None)

    def _on_backward(self, call: _Call, delta: torch.Tensor) -> None:
        call.delta = delta
        self.num_awaited -= 1
        if not self.num_awaited:
            self.finish()

    @torch.no_grad()
    def finish(self) -> None:
        calls = [call for call in self.calls if call.delta is not None]
        self.calls.clear()
        self.num_awaited = 0
        if not calls or self.passing is None:
            return
        if any(call.inputs._version != call.version for call in calls):
            raise TrialError(f"{self.site.path}: the model overwrites what this map has read")
        self.visit(
            Seen(
                site=self.number,
                rows=self.passing.rows,
                num_tokens=torch.stack([call.num_tokens for call in calls]).sum(0),
                gradients=Factored(
                    inputs=_joined([call.inputs for call in calls]),
                    deltas=_joined([call.deltas for call in calls]),
                ),
                input_energies=partial(_input_energies, calls),
            )
        )


def _input_energies(calls: list[_Call]) -> torch.Tensor:
    return torch.stack([call.input_energies for call in calls]).sum(0)


def _joined(calls: list[torch.Tensor]) -> torch.Tensor:
    return calls[0] if len(calls) == 1 else torch.cat(calls, dim=1)
