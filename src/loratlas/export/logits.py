"""Does what was written compute what the trained adapter does? Logits of made-up rows say so.

The rows are token numbers drawn by a fixed seed, so that no data are needed: two models that
give them the same logits, token by token, are the same function as far as anyone can see.
"""

from typing import Any

import torch

from loratlas.errors import VerificationError
from loratlas.train.base import Base, max_positions

NUM_ROWS, LENGTH = 2, 16
_SEED = 0
_TOLERANCES = {torch.float32: 3e-6, torch.bfloat16: 5e-2}
"""Largest difference, as a share of the largest logit (at least of 1). Folding a scale into B, and
adding B A to W, round once more: in fp32 to 24 bits, in bf16 to 8, layer after layer."""


def logits(base: Base, model: Any) -> torch.Tensor:
    """Return a model's logits of the made-up rows, on the CPU in fp32.

    Returns:
        (rows, tokens, vocabulary), or (rows, classes) of a classifier.
    """
    rows = _rows(base)
    inputs = {"input_ids": rows, "attention_mask": torch.ones_like(rows)}
    if base.task == "seq2seq":
        inputs["decoder_input_ids"] = rows
    model.eval()
    with torch.no_grad():
        found: torch.Tensor = model(**inputs).logits
    return found.float().cpu()


def tolerance(base: Base, expected: torch.Tensor) -> float:
    """Return how far logits may lie apart that are equal up to rounding."""
    return _TOLERANCES[base.model.dtype] * max(1.0, float(expected.abs().max()))


def require_equal(base: Base, expected: torch.Tensor, found: torch.Tensor, what: str) -> float:
    """Raise unless logits are equal up to rounding; return the largest difference.

    Args:
        base: the base of both.
        expected: of the trained adapter, by PEFT.
        found: of what was written, read back.
        what: what was written.

    Raises:
        VerificationError: they differ by more.
    """
    largest, allowed = float((expected - found).abs().max()), tolerance(base, expected)
    if not largest <= allowed:
        raise VerificationError(
            f"{what} does not compute what the trained adapter does: logits differ by "
            f"{largest:.3g}, and {allowed:.3g} would be rounding; nothing was written"
        )
    return largest


def _rows(base: Base) -> torch.Tensor:
    """Return token numbers, shape (rows, tokens), none of which is padding."""
    # An embedding that is adapted stands inside its adapter, which knows its weight.
    vocabulary = base.model.get_input_embeddings().weight.shape[0]
    length = min(LENGTH, max_positions(base.model) or LENGTH)
    generator = torch.Generator().manual_seed(_SEED)
    rows = torch.randint(vocabulary - 1, (NUM_ROWS, length), generator=generator)
    rows += rows >= base.pad_id
    return rows.to(base.device)
