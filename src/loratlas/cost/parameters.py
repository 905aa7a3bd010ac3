"""What a placement costs in parameters and bytes, and how those costs compare.

Percentages are of 100. The counts of adapters come from shapes: a site of rank r costs
r * (d_in + d_out) parameters, times its number of experts.
"""

from loratlas.errors import RequestError, did_you_mean
from loratlas.placement.placement import Placement

BYTES_PER_PARAMETER = {"fp32": 4, "bf16": 2, "fp16": 2}


def trainable_parameters(placement: Placement) -> int:
    """Return the trainable parameters: the sum of rank * (d_in + d_out) over its maps."""
    return placement.trainable_parameters


def adapter_bytes(num_parameters: int, *, dtype: str = "fp32") -> int:
    """Return the bytes of the adapter weights: parameters times the bytes of one.

    Raises:
        RequestError: the type is none of fp32, bf16 and fp16.
    """
    if dtype not in BYTES_PER_PARAMETER:
        raise RequestError(
            f"unknown dtype {dtype!r}{did_you_mean(dtype, BYTES_PER_PARAMETER)}; "
            f"it is one of {', '.join(BYTES_PER_PARAMETER)}"
        )
    return num_parameters * BYTES_PER_PARAMETER[dtype]


def trainable_percent(num_trainable: int, num_base: int) -> float:
    """Return the share of adapters in base and adapters: 100 * t / (b + t).

    This is what PEFT prints as ``trainable%``.
    """
    return 100 * num_trainable / (num_base + num_trainable)


def percent_saved_against_full(num_trainable: int, num_base: int) -> float:
    """Return the reduction against full fine-tuning as it is usually told: 100 - share.

    100 * (1 - t / (b + t)): full fine-tuning is taken to train base and adapters. Against the
    base alone, 100 * (1 - t / b), the figure is a little smaller: 98.23 for 98.26.
    """
    return 100 - trainable_percent(num_trainable, num_base)


def percent_saved_against_baseline(num_trainable: int, num_baseline: int) -> float:
    """Return the reduction against another placement: 100 * (1 - t / baseline)."""
    return 100 * (1 - num_trainable / num_baseline)


def optimiser_bytes(num_parameters: int) -> int:
    """Return the bytes of AdamW's two averages, fp32 each whatever the base's type is."""
    return 2 * adapter_bytes(num_parameters)
