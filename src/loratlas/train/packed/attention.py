"""How do rows that stand one after another in one flat sequence attend only to themselves?

transformers lets a model's attention be chosen by name. Under the name registered here each row
is cut out of the sequence and given to transformers' own SDPA attention: no padding, no mask, and
a row's result does not depend on its neighbours. On a GPU, where many small calls are slow, rows
of a causal model are put side by side in one padded call: what follows a row cannot be seen by it.
"""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
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
    """Attend row after row; where many rows are of one length, those together.

    Neither what a row attends to nor the bits of it depend on the rows beside it.
    """
    lengths = [stop - start for start, stop in pairwise(bounds)]
    if 2 * len(set(lengths)) > len(lengths):
        groups = [(1, length) for length in lengths]
        return _attend(module, query, key, value, groups, more)
    groups = sorted((count, length) for length, count in Counter(lengths).items())
    to, back = _by_length(tuple(lengths), tuple(groups), query.device)
    q, k, v = (_permuted(tensor, 2, to, back) for tensor in (query, key, value))
    return _permuted(_attend(module, q, k, v, groups, more), 1, back, to)


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    groups: Sequence[tuple[int, int]],
    more: dict[str, Any],
) -> torch.Tensor:
    """Attend within rows that stand in groups of (rows, length)."""
    sizes = [count * length for count, length in groups]
    cut = zip(*(torch.split(tensor, sizes, dim=2) for tensor in (query, key, value)), strict=True)
    found = []
    for (count, length), parts in zip(groups, cut, strict=True):
        # (1, heads, rows * length, width) → (rows, heads, length, width)
        q, k, v = (part[0].unflatten(1, (count, length)).transpose(0, 1) for part in parts)
        attended, _ = sdpa_attention_forward(module, q, k, v, None, **more)
        found.append(attended.flatten(0, 1))
    return torch.cat(found)[None]


def _permuted(tensor: torch.Tensor, dim: int, to: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
    moved: torch.Tensor = _Permuted.apply(tensor, dim, to, back)  # type: ignore[no-untyped-call]
    return moved


class _Permuted(torch.autograd.Function):
    """Tokens in another order; the way back is the other order, and no sum."""

    @staticmethod
    def forward(
        ctx: Any, tensor: torch.Tensor, dim: int, to: torch.Tensor, back: torch.Tensor
    ) -> torch.Tensor:
        ctx.dim, ctx.back = dim, back
        return tensor.index_select(dim, to)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return gradients[0].index_select(ctx.dim, ctx.back), None, None, None


@lru_cache(maxsize=8)
def _by_length(
    lengths: tuple[int, ...], groups: tuple[tuple[int, int], ...], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the order of tokens that puts rows of one length together, and the way back."""
    place = {length: number for number, (_, length) in enumerate(groups)}
    starts = [0, *accumulate(lengths)]
    order = sorted(range(len(lengths)), key=lambda row: place[lengths[row]])
    to = torch.cat([torch.arange(starts[row], starts[row + 1]) for row in order])
    return to.to(device), to.argsort().to(device)


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
