"""Which torch functions mean what? Their names, as a torch function mode sees them."""

from collections.abc import Mapping
from typing import Any

ACTIVATIONS = frozenset(
    {
        *("relu", "relu_", "relu6", "leaky_relu", "leaky_relu_", "prelu", "elu", "elu_", "celu"),
        *("selu", "gelu", "silu", "silu_", "mish", "hardswish", "hardsigmoid", "hardtanh"),
        *("sigmoid", "sigmoid_", "logsigmoid", "tanh", "tanh_", "softplus", "erf", "expm1"),
    }
)
PRODUCTS = frozenset(
    {
        *("mul", "mul_", "__mul__", "__rmul__", "__imul__", "multiply", "addcmul"),
        *("div", "div_", "__truediv__", "true_divide"),
    }
)
SUMS = frozenset(
    {
        *("add", "add_", "__add__", "__radd__", "__iadd__"),
        *("sub", "sub_", "__sub__", "__rsub__", "__isub__", "subtract"),
    }
)
CHOICES = frozenset({"topk", "argmax", "argsort", "sort", "kthvalue", "multinomial"})
# exp(x - logsumexp(x)) is a softmax.
SOFTMAXES = frozenset({"softmax", "logsumexp"})
SCANS = frozenset({"cumsum", "cumsum_", "cumprod", "logcumsumexp"})
CONVOLUTIONS = frozenset(
    {
        *("conv1d", "conv2d", "conv3d"),
        *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    }
)
PARTS = frozenset(
    {
        *("__getitem__", "__iter__", "select", "narrow", "index_select", "gather"),
        *("take_along_dim", "chunk", "unsafe_chunk", "split", "split_with_sizes"),
        *("tensor_split", "unbind"),
    }
)
# Positions of the two factors among the arguments of each matrix product.
MATRIX_PRODUCTS: Mapping[str, tuple[int, int]] = {
    **dict.fromkeys(("linear", "matmul", "__matmul__", "mm", "bmm", "mv"), (0, 1)),
    **dict.fromkeys(("grouped_mm", "_grouped_mm"), (0, 1)),
    **dict.fromkeys(("addmm", "baddbmm", "addbmm", "baddbmm_"), (1, 2)),
    "__rmatmul__": (1, 0),
}


def content(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
    """Return the arguments whose values, not only shape and type, make the result."""
    if name.endswith("_like") or name.startswith("new_"):
        return ()
    if name.endswith("_as") or name == "to":
        return args[:1]
    return args, kwargs


def writes_in_place(name: str) -> bool:
    """Whether a function changes its first argument."""
    in_place = name.endswith("_") and not name.endswith("__")
    return in_place or name in ("__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__")
