"""How do token rows become the tensors of one batch?"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from loratlas.data.rows import IGNORED, TokenizedRow
from loratlas.data.spec import Task

PaddingSide = Literal["left", "right"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Collator:
    """Makes the batches of one model.

    Attributes:
        task: what the model predicts.
        pad_id: id that fills up; the attention mask hides it.
        start_id: what a decoder begins with, in seq2seq.
        padding_side: where the padding goes; a decoder's is always on the right.
    """

    task: Task = "causal"
    pad_id: int
    start_id: int = 0
    padding_side: PaddingSide = "right"

    def __call__(self, rows: Sequence[TokenizedRow]) -> dict[str, torch.Tensor]:
        """Return the arguments of a model's forward pass, and `labels`.

        Labels come from each row's own mask, never from the pad id: a pad id that is also the
        end of text (as usual with GPT-2) hides no scored token.

        Returns:
            int64 tensors: `input_ids` and `attention_mask` of shape (num_rows, num_tokens);
            `labels` of the same shape (unshifted, -100 where not scored), in seq2seq of the
            shape of `decoder_input_ids`, and in classification of shape (num_rows,).

        Raises:
            ValueError: there are no rows.
        """
        if not rows:
            raise ValueError("collate: there are no rows")
        if self.task == "seq2seq":
            return self._pairs(rows)
        read = [row.ids if row.masked is None else row.masked for row in rows]
        batch = self._inputs(read)
        if self.task == "classification":
            return batch | self._types(rows) | {"labels": torch.tensor([r.label for r in rows])}
        labels = _filled([row.labels for row in rows], IGNORED, self.padding_side)
        return batch | {"labels": labels}

    def _inputs(self, ids: Sequence[NDArray[np.int32]]) -> dict[str, torch.Tensor]:
        seen = [np.ones(len(each)) for each in ids]
        return {
            "input_ids": _filled(ids, self.pad_id, self.padding_side),
            "attention_mask": _filled(seen, 0, self.padding_side),
        }

    def _types(self, rows: Sequence[TokenizedRow]) -> dict[str, torch.Tensor]:
        types = [row.types for row in rows if row.types is not None]
        return {"token_type_ids": _filled(types, 0, self.padding_side)} if types else {}

    def _pairs(self, rows: Sequence[TokenizedRow]) -> dict[str, torch.Tensor]:
        sources = [row.source for row in rows if row.source is not None]
        before = [np.array([self.start_id, *row.ids[:-1]]) for row in rows]
        return self._inputs(sources) | {
            "decoder_input_ids": _filled(before, self.pad_id, "right"),
            "labels": _filled([row.labels for row in rows], IGNORED, "right"),
        }


def collate(
    rows: Sequence[TokenizedRow], pad_id: int, *, padding_side: PaddingSide = "right"
) -> dict[str, torch.Tensor]:
    """Return the batch of a causal language model: `Collator` for the usual case."""
    return Collator(pad_id=pad_id, padding_side=padding_side)(rows)


def _filled(
    sequences: Iterable[NDArray[np.generic]], value: int, side: PaddingSide
) -> torch.Tensor:
    """Return sequences as one int64 tensor, (num_sequences, longest), filled up with a value."""
    tensors = [torch.from_numpy(sequence.astype("int64")) for sequence in sequences]
    return torch.nn.utils.rnn.pad_sequence(
        tensors, batch_first=True, padding_value=value, padding_side=side
    )
