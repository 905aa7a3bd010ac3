"""How is a model's head kept from computing logits that nobody asks for?

A vocabulary is wide, and often half of the tokens are not scored. The head of a language model
treats each place by itself, and so does what follows it (scales, caps, biases). So the head is
given the places that are scored, one after another, as if they were one row; a short row shows
beforehand whether a model takes it so.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from loratlas.score.scorer import Subject
from loratlas.score.stand_ins import inputs_of_length

_TRIED, _PLACES = 8, (1, 5, 6)
# Relative to the largest logit: the same sums, which a kernel may divide otherwise.
_SAME = {torch.float32: 1e-4, torch.bfloat16: 2e-2}


class ScoredHead:
    """The model of a subject, whose head reads the places that are asked for where that works.

    Attributes:
        is_short: whether it does; else logits are computed everywhere, and then chosen.
    """

    def __init__(self, subject: Subject) -> None:
        self._model = subject.base.model
        self._places: torch.Tensor | None = None
        self._head = _head_of(subject)
        self.is_short = self._head is not None and self._is_same(subject)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Let the head be told what to read for a while."""
        handle = self._head.register_forward_pre_hook(self._on_forward) if self.is_short else None
        try:
            yield
        finally:
            if handle is not None:
                handle.remove()

    def logits(self, inputs: Mapping[str, Any], places: torch.Tensor) -> torch.Tensor:
        """Return the logits at some places of a batch, shape (places, vocabulary).

        Args:
            inputs: arguments of the model's forward pass.
            places: indices among its tokens, row after row, shape (places,).
        """
        self._places = places
        logits: torch.Tensor = self._model(**inputs).logits
        return logits[0] if self.is_short else logits.flatten(0, 1)[places]

    def _on_forward(self, module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:  # noqa: ARG002
        return (args[0].flatten(0, -2)[None, self._places], *args[1:])

    @torch.no_grad()
    def _is_same(self, subject: Subject) -> bool:
        inputs = inputs_of_length(subject, num_rows=1, num_tokens=_TRIED)
        places = torch.tensor(_PLACES, device=subject.base.device)
        whole = self._model(**inputs).logits.flatten(0, 1)[places]
        self.is_short = True
        with self.opened():
            self._places = places
            found = self._model(**inputs).logits
        if found.shape != (1, *whole.shape):
            return False
        return float((found[0] - whole).abs().max()) <= _SAME[whole.dtype] * float(
            whole.abs().max()
        )


def _head_of(subject: Subject) -> Any:
    """Return the module that gives the logits; None where it is a site, or is not known."""
    if subject.base.task == "classification":
        return None
    head = subject.base.model.get_output_embeddings()
    own = [subject.base.model.get_submodule(s.path) for s in subject.sites if s.kind != "expert"]
    return None if any(module is head for module in own) else head
