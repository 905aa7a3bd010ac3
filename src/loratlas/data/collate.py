"""How do token rows become the tensors of one batch?"""

from collections.abc import Sequence
from typing import Literal

import torch

from loratlas.data.tokens import IGNORED, TokenizedRow


def collate(
    rows: Sequence[TokenizedRow],
    pad_id: int,
    *,
    padding_side: Literal["left", "right"] = "right",
    pad_to: int | None = None,
) -> dict[str, torch.Tensor]:
    """Pad rows to one length.

    Labels come from each row's own mask, never from the pad id: a pad id that is also the end
    of text (as usual with GPT-2) hides no scored token.

    Args:
        rows: at least one row.
        pad_id: id that fills up; the attention mask hides it.
        padding_side: where the padding goes.
        pad_to: length in tokens; None takes the longest row.

    Returns:
        `input_ids`, `attention_mask` and `labels` (unshifted, -100 where not scored), each int64
        of shape (num_rows, num_tokens).

    Raises:
        ValueError: no rows, or one longer than `pad_to`.
    """
    if not rows:
        raise ValueError("collate: there are no rows")
    longest = max(len(row.ids) for row in rows)
    length = longest if pad_to is None else pad_to
    if longest > length:
        raise ValueError(f"collate: a row of {longest} tokens does not fit into {length}")
    shape = (len(rows), length)
    input_ids = torch.full(shape, pad_id, dtype=torch.int64)
    attention_mask = torch.zeros(shape, dtype=torch.int64)
    labels = torch.full(shape, IGNORED, dtype=torch.int64)
    for number, row in enumerate(rows):
        start = length - len(row.ids) if padding_side == "left" else 0
        place = slice(start, start + len(row.ids))
        input_ids[number, place] = torch.tensor(row.ids.astype("int64"))
        attention_mask[number, place] = 1
        labels[number, place] = torch.tensor(row.labels)
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}
