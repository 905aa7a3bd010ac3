"""How is a model's own forward pass taken apart: blocks from one to another, then its head?

The model's code is left as it is. Each block, and the module that gives the last hidden state, gets
a forward pass of ours for a while (`opened`): blocks outside the stretch that is asked for hand
their input on, the first one of the stretch reads the hidden states that it is given, and the pass
ends as soon as what is wanted is there. So position embeddings, masks and whatever else a family
prepares before its blocks are made by its own code, for just the rows that are there.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from loratlas.anatomy.sites import Anatomy
from loratlas.train.packed.sites import forward_replaced


class _Reached(Exception):  # noqa: N818
    """Ends a forward pass that has given what it was run for."""


@dataclass(kw_only=True)
class _Stretch:
    """What the pass in progress is to do; the replaced forward passes read it."""

    first: int = 0
    stop: int = 0
    entering: torch.Tensor | None = None
    taps: Mapping[int, list[torch.Tensor]] = field(default_factory=dict)
    given: torch.Tensor | None = None
    """Hidden states that the head is to read; None while the blocks run."""
    found: torch.Tensor | None = None


class Backbone:
    """A base model whose blocks can be run from one to another.

    Args:
        model: the transformers model.
        anatomy: names its blocks; without it the model is only run as a whole, as are models of
            two stacks.
        last: the module that gives the last hidden state, one of `last_modules`.

    Attributes:
        num_blocks: blocks that can be entered; 0 where the model is only run as a whole.
    """

    def __init__(self, model: Any, anatomy: Anatomy | None, last: Any = None) -> None:
        self._model = model
        self._blocks = () if anatomy is None else _blocks(model, anatomy)
        self._last = last_modules(model, anatomy)[0] if last is None else last
        self._now = _Stretch()
        self._output_class: Any = None
        self._block_outputs = 0
        self.num_blocks = len(self._blocks)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Make `run` and `head` possible for a while."""
        with ExitStack() as stack:
            for index, block in enumerate(self._blocks):
                stack.enter_context(forward_replaced(block, self._block_forward(index, block)))
            stack.enter_context(forward_replaced(self._last, self._last_forward()))
            yield

    def run(
        self,
        inputs: Mapping[str, Any],
        *,
        first: int = 0,
        stop: int | None = None,
        entering: torch.Tensor | None = None,
        taps: Sequence[int] = (),
    ) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
        """Run blocks on rows.

        Args:
            inputs: arguments of the model's forward pass, for these rows.
            first: the first block that is run.
            stop: the block before which the pass ends; None runs to the last hidden state, what
                follows the blocks included.
            entering: hidden states before block `first`; None begins with the embeddings.
            taps: blocks before which hidden states are wanted, too.

        Returns:
            the hidden states at the end, and those before each of `taps`.
        """
        self._now = _Stretch(
            first=first,
            stop=self.num_blocks + 1 if stop is None else stop,
            entering=entering,
            taps={layer: [] for layer in taps},
        )
        self._forward(**inputs)
        found, tapped = self._now.found, self._now.taps
        self._now = _Stretch()
        assert found is not None
        return found, {layer: states[0] for layer, states in tapped.items()}

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits that the model gives to last hidden states; `run` comes first.

        Args:
            hidden: shape (1, tokens, width).

        Returns:
            shape (1, tokens, vocabulary).
        """
        self._now = _Stretch(given=hidden)
        blank = torch.zeros(hidden.shape[:2], dtype=torch.long, device=hidden.device)
        arguments: dict[str, Any] = {"input_ids": blank}
        if self._model.config.is_encoder_decoder:
            arguments |= {"decoder_input_ids": blank, "encoder_outputs": (hidden,)}
        try:
            logits: torch.Tensor = self._model(**arguments).logits
        finally:
            self._now = _Stretch()
        return logits

    def _forward(self, **inputs: Any) -> None:
        try:
            self._model(**inputs)
        except _Reached:
            return
        raise AssertionError("the model's forward pass did not come by its last hidden state")

    def _block_forward(self, index: int, block: Any) -> Callable[..., Any]:
        original = block.forward

        def forward(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            now = self._now
            if index < now.first:
                return self._handed_on(index, hidden_states)
            if index == now.first and now.entering is not None:
                hidden_states = now.entering
            self._tap(index, hidden_states)
            if index == now.stop:
                now.found = hidden_states
                raise _Reached
            output = original(hidden_states, *args, **kwargs)
            self._block_outputs = len(output) if isinstance(output, tuple) else 0
            if now.stop == self.num_blocks == index + 1:  # what follows the blocks is left out
                now.found = output[0] if isinstance(output, tuple) else output
                raise _Reached
            return output

        return forward

    def _handed_on(self, index: int, hidden_states: torch.Tensor) -> Any:
        """Return what the next block reads; after the last one, what enters behind all blocks.

        It has the form of a block's own output.
        """
        now = self._now
        behind_all = index == self.num_blocks - 1 and now.first == self.num_blocks
        on = now.entering if behind_all and now.entering is not None else hidden_states
        return (on, *[None] * (self._block_outputs - 1)) if self._block_outputs else on

    def _tap(self, index: int, hidden_states: torch.Tensor) -> None:
        if index in self._now.taps:
            self._now.taps[index].append(hidden_states)

    def _last_forward(self) -> Callable[..., Any]:
        original = self._last.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            now = self._now
            if now.given is not None:
                return self._output_class(last_hidden_state=now.given)
            output = original(*args, **kwargs)
            self._output_class, now.found = type(output), output[0]
            raise _Reached

        return forward


def _blocks(model: Any, anatomy: Anatomy) -> tuple[Any, ...]:
    """Return the blocks of a model of one stack, in order; none where they are not one list."""
    if len(anatomy.stacks) != 1:
        return ()
    paths: dict[int, str] = {}
    for site in anatomy.sites:
        if site.layer is not None:
            paths.setdefault(site.layer, _block_path(site.path))
    (num_layers,) = anatomy.stacks.values()
    lists = {path.rpartition(".")[0] for path in paths.values()}
    if sorted(paths) != list(range(num_layers)) or len(lists) != 1:
        return ()
    return tuple(model.get_submodule(paths[layer]) for layer in range(num_layers))


def _block_path(path: str) -> str:
    """Return the path up to its first number: that of the block in its list."""
    parts = path.split(".")
    end = next(place for place, part in enumerate(parts) if part.isdecimal())
    return ".".join(parts[: end + 1])


def last_modules(model: Any, anatomy: Anatomy | None) -> tuple[Any, ...]:
    """Return the modules that may give the last hidden state, which the head reads."""
    found = [model.base_model, model.get_decoder(), _holder(model, anatomy)]
    return tuple(dict.fromkeys(each for each in found if each is not None and each is not model))


def _holder(model: Any, anatomy: Anatomy | None) -> Any:
    """Return the module that holds the list of the last blocks."""
    paths = [] if anatomy is None else [site.path for site in anatomy.sites if site.in_block]
    if not paths:
        return None
    return model.get_submodule(_block_path(paths[-1]).rpartition(".")[0].rpartition(".")[0])
