"""What is a model told that looks at values which do not exist?

A forward pass on the meta device has shapes and no values. Tensors that do not depend on
weights stay on the CPU with their true values; a question about the value of a tensor
that does depend on them (which tokens go to this expert, is this mask all ones) gets an
answer of the right type and shape, chosen so that the usual branch runs.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from loratlas.anatomy.operations import writes_in_place

_META, _CPU = torch.device("meta"), torch.device("cpu")


# Functions that take sizes: a size that is a tensor of its own is a number to them.
_SIZED = frozenset(
    {"view", "reshape", "expand", "narrow", "repeat", "unfold", "as_strided", "new_zeros"}
)


def settle_devices(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Bring the arguments of one call to one device.

    A call with a weight-dependent (meta) tensor runs on meta; any other runs on the CPU,
    whatever device it asked for. A CPU tensor that is about to be overwritten with a
    weight-dependent one becomes a meta tensor itself.
    """
    on_meta = _any_meta(args) or _any_meta(kwargs)
    target = _META if on_meta else _CPU
    if on_meta and writes_in_place(name) and isinstance(args[0], Tensor) and not args[0].is_meta:
        torch.utils.swap_tensors(args[0], _copied(args[0]))  # type: ignore[no-untyped-call]
    if on_meta and name in _SIZED:
        args, kwargs = _number(args), {k: _number(v) for k, v in kwargs.items()}
    settled = tuple(_settle(a, target) for a in args)
    return settled, {k: _settle(v, target) for k, v in kwargs.items()}


def _number(value: Any) -> Any:
    if isinstance(value, Tensor) and value.dim() == 0 and not value.is_meta:
        return value.item()
    if type(value) in (list, tuple):
        return type(value)(_number(v) for v in value)
    return value


def _any_meta(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.is_meta
    if isinstance(value, list | tuple):
        return any(_any_meta(v) for v in value)
    if isinstance(value, dict):
        return any(_any_meta(v) for v in value.values())
    return False


def _settle(value: Any, target: torch.device) -> Any:
    if isinstance(value, Tensor):
        return _copied(value) if target is _META and not value.is_meta else value
    if isinstance(value, torch.device):
        return target
    if isinstance(value, str) and value in ("meta", "cpu"):
        return str(target)
    if type(value) in (list, tuple):
        return type(value)(_settle(v, target) for v in value)
    return value


def _copied(tensor: Tensor) -> Tensor:
    """Return the tensor on the meta device, with what was noted on it."""
    moved = tensor.detach().to(_META)
    moved.__dict__.update(tensor.__dict__)
    return moved


def run(name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call `func`, or answer for it where it would need a value that does not exist."""
    answer = _ANSWERS.get(name)
    if answer is not None and args and isinstance(args[0], Tensor) and _any_meta(args):
        return answer(func, args, kwargs)
    return func(*args, **kwargs)


def _scalar(_func: Callable[..., Any], args: tuple[Any, ...], _kwargs: dict[str, Any]) -> Any:
    kind = args[0].dtype
    return False if kind is torch.bool else 1.0 if kind.is_floating_point else 1


def _truth(_func: Callable[..., Any], _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> bool:
    return False


def _valid(_func: Callable[..., Any], _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> bool:
    """Answer a check of arguments: they are as they should be."""
    return True


def _integer(_func: Callable[..., Any], _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> int:
    return 1


def _text(_func: Callable[..., Any], _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> str:
    return "0"


def _listed(_func: Callable[..., Any], args: tuple[Any, ...], _kwargs: dict[str, Any]) -> Any:
    return torch.ones(args[0].shape, dtype=args[0].dtype, device="cpu").tolist()


def _positions(_func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Answer nonzero with one position: something is there."""
    found = torch.zeros((1, args[0].dim()), dtype=torch.long, device=_META)
    return found.unbind(1) if kwargs.get("as_tuple") else found


def _where(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if len(args) + len(kwargs) > 1:
        return func(*args, **kwargs)
    return _positions(func, args, {"as_tuple": True})


def _getitem(func: Callable[..., Any], args: tuple[Any, ...], _kwargs: dict[str, Any]) -> Any:
    """Select one element for an index without value, one row for a mask without values."""
    tensor, index = args
    parts = index if isinstance(index, tuple) else (index,)
    return func(tensor, tuple(known for part in parts for known in _known_index(part)))


def _known_index(part: Any) -> tuple[Any, ...]:
    if not isinstance(part, Tensor) or not part.is_meta:
        return (part,)
    if part.dtype is torch.bool:
        zero = torch.zeros(1, dtype=torch.long, device=_META)
        return (zero,) * part.dim()
    return (0,) if part.dim() == 0 else (part,)


def _split(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Split evenly where the sizes depend on values and do not add up."""
    tensor, sizes = args[0], args[1] if len(args) > 1 else kwargs["split_size"]
    dim = args[2] if len(args) > 2 else kwargs.get("dim", 0)
    length = tensor.shape[dim]
    if not isinstance(sizes, list | tuple) or sum(sizes) == length:
        return func(*args, **kwargs)
    rest = len(sizes) - 1
    return func(
        tensor, [length - rest * (length // len(sizes)), *[length // len(sizes)] * rest], dim
    )


def _setitem(func: Callable[..., Any], args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
    """Leave the shape as it is: there is no value to write."""


_ANSWERS: dict[str, Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]] = {
    "item": _scalar,
    "__bool__": _truth,
    "is_nonzero": _truth,
    "equal": _truth,
    "allclose": _truth,
    "_is_all_true": _valid,
    "__int__": _integer,
    "__index__": _integer,
    "__float__": _scalar,
    "__format__": _text,
    "tolist": _listed,
    "nonzero": _positions,
    "split": _split,
    "where": _where,
    "__getitem__": _getitem,
    "__setitem__": _setitem,
}
