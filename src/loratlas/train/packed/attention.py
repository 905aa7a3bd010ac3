"""How do rows that stand one after another in one flat sequence attend only to themselves?

transformers lets a model's attention be chosen by name. Under the name registered here each row
is cut out of the sequence and given to transformers' own SDPA attention: no padding, no mask, and
a row's result does not depend on its neighbours. On a GPU, where many small calls are slow, rows
of a causal model are put side by side in one padded call: what follows a row cannot be seen by it.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

NAME = "loratlas_rows"
# What changes attention in a way that cutting rows out would lose.
_REFUSED = ("position_bias", "softcap", "s_aux", "cache")


class RowAttentionError(RuntimeError):
    """The model's attention needs something that rows of a flat sequence do not have."""


def attend_by_row(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    row_bounds: Sequence[int] | None = None,
    sliding_window: int | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Return attention within each row.

    Args:
        module: the attention module.
        query: shape (1, heads, tokens, width); `key` and `value` with their own heads.
        key: as the query.
        value: as the query.
        attention_mask: None; the bounds say who sees whom.
        row_bounds: where rows begin, and the end of the last: one number more than rows.
        sliding_window: tokens that a query looks back, which no row may exceed.
        more: what the model tells its attention (scaling, dropout, ...).

    Returns:
        shape (1, tokens, heads, width), and None.

    Raises:
        RowAttentionError: the model asks for a mask, a bias or a window that rows do not have.
    """
    refused = [name for name in _REFUSED if more.get(name) is not None]
    if row_bounds is None or attention_mask is not None or refused:
        raise RowAttentionError(f"row by row attention: {', '.join(refused) or 'no row bounds'}")
    longest = max(stop - start for start, stop in pairwise(row_bounds))
    if sliding_window is not None and longest > sliding_window:
        raise RowAttentionError(f"a row of {longest} tokens exceeds the window {sliding_window}")
    together = _side_by_side if query.device.type == "cuda" and _causal(module, more) else _cut_out
    return together(module, query, key, value, row_bounds, more), None


def _causal(module: torch.nn.Module, more: dict[str, Any]) -> bool:
    told = more.get("is_causal")
    return bool(getattr(module, "is_causal", True) if told is None else told)


def _cut_out(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: Sequence[int],
    more: dict[str, Any],
) -> torch.Tensor:
    """Attend row after row."""
    lengths = [stop - start for start, stop in pairwise(bounds)]
    cut = (tensor.split(lengths, dim=2) for tensor in (query, key, value))
    found = [
        sdpa_attention_forward(module, *row, None, **more)[0] for row in zip(*cut, strict=True)
    ]
    return torch.cat(found, dim=1)


def _side_by_side(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: Sequence[int],
    more: dict[str, Any],
) -> torch.Tensor:
    """Attend in one call over rows filled up on the right; only for causal attention."""
    lengths = [stop - start for start, stop in pairwise(bounds)]
    shape = (len(lengths), max(lengths))
    place = _places(tuple(lengths), query.device)

    def filled(tensor: torch.Tensor) -> torch.Tensor:
        tokens = tensor[0].transpose(0, 1)
        wide = tokens.new_zeros(shape[0] * shape[1], *tokens.shape[1:])
        rows = wide.index_copy(0, place, tokens)
        return rows.view(*shape, *tokens.shape[1:]).transpose(1, 2)

    found, _ = sdpa_attention_forward(
        module, filled(query), filled(key), filled(value), None, **more
    )
    return found.flatten(0, 1).index_select(0, place).unsqueeze(0)


@lru_cache(maxsize=8)
def _places(lengths: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Return where each token stands once rows are filled up, shape (tokens,)."""
    longest = max(lengths)
    places = [torch.arange(length) + row * longest for row, length in enumerate(lengths)]
    return torch.cat(places).to(device)


AttentionInterface.register(NAME, attend_by_row)
