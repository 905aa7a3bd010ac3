"""What can a person set of each policy, and where do the defaults come from? No torch."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal, get_args

from loratlas.errors import PlacementError

Unit = Literal["parameters", "ranks"]
UNITS: tuple[str, ...] = get_args(Unit)


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What every policy can be told.

    Raises:
        PlacementError: a value is not allowed.
    """

    initial: float = 1.5
    """Parameters at the start as a multiple of the target: 1.5 in AdaLoRA's paper, section 3.3."""
    warmup: float = 0.1
    """Before the budget moves: below 1 a share of all steps, else steps. AdaLoRA's runs on GLUE
    take 9% to 15%."""
    final: float = 0.5
    """After the last decision: below 1 a share of all steps, else steps. AdaLoRA's runs on GLUE
    take 46% to 58%."""
    interval: float | None = None
    """Between decisions: below 1 a share of all steps, else steps; without it one 40th of the
    steps, and at least 7."""
    min_rank: int = 0
    """Least rank of a site. One that falls to 0 has no gradient any more and stays out."""
    beta: float = 0.85
    """Memory of the running average of importance; AdaLoRA's β1."""

    def __post_init__(self) -> None:
        check_common(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class SaliencyOptions(Options):
    """What `saliency` can be told."""

    max_rank: int | None = None
    """Largest rank of a site; without it 4 times the rank that it begins with."""
    explore: float = 0.1
    """Share of the budget that is given to new columns at the first decision; it falls in a
    straight line to none at the last, as the share of regrown weights does in RigL (1911.11134)."""

    def __post_init__(self) -> None:
        check_common(self)
        check_saliency(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class EntropyOptions(SaliencyOptions):
    """What `attention_entropy` can be told."""

    strength: float = 0.5
    """How much entropy weighs; below 0 focused layers are favoured in place of diffuse ones."""
    rows: int = 32
    """Training rows that entropies are taken from."""
    without_first_token: bool = False
    """Whether the attention that the first token gets is left out."""

    def __post_init__(self) -> None:
        check_common(self)
        check_saliency(self)
        allowed = "a number between -1 and 1, both left out"
        _require(self, "strength", allowed, lambda value: _is_number(value) and -1 < value < 1)
        _require(self, "rows", "a positive integer", lambda value: _is_whole(value) and value > 0)
        _require(self, "without_first_token", "true or false", lambda v: isinstance(v, bool))


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaLoraOptions(Options):
    """What `adalora` can be told."""

    beta2: float = 0.85
    """Memory of the running average of uncertainty."""
    orthogonality: float = 0.5
    """Weight in the loss of the mean of ‖PᵀP - I‖ and ‖QQᵀ - I‖ over sites; PEFT's default."""
    unit: Unit = "parameters"
    """What the budget counts on its way: parameters, or ranks as in the paper. In the end neither
    has more parameters than the target."""

    def __post_init__(self) -> None:
        check_common(self)
        _require(self, "initial", "at least 1, for ranks only fall", lambda value: value >= 1)
        _require(self, "beta2", "a number above 0 and below 1", _is_memory)
        _require(self, "orthogonality", "a number from 0 up", lambda v: _is_number(v) and v >= 0)
        _require(self, "unit", f"one of {', '.join(UNITS)}", lambda value: value in UNITS)


def check_common(options: Options) -> None:
    """Check what all policies share.

    Raises:
        PlacementError: a value is not allowed.
    """
    _require(options, "initial", "a number above 0", lambda v: _is_number(v) and v > 0)
    span = "a share of the steps below 1, or a whole number of steps"
    _require(options, "warmup", span, _is_span)
    _require(options, "final", span, _is_span)
    _require(options, "interval", span, lambda v: v is None or (_is_span(v) and v > 0))
    _require(options, "min_rank", "an integer from 0 up", lambda v: _is_whole(v) and v >= 0)
    _require(options, "beta", "a number above 0 and below 1", _is_memory)


def check_saliency(options: SaliencyOptions) -> None:
    """Check what policies share that prune and grow.

    Raises:
        PlacementError: a value is not allowed.
    """
    lowest = max(1, options.min_rank)
    allowed = f"an integer from {lowest} up"
    _require(options, "max_rank", allowed, lambda v: v is None or (_is_whole(v) and v >= lowest))
    allowed = "at least 0 and below 1"
    _require(options, "explore", allowed, lambda v: _is_number(v) and 0 <= v < 1)


def _require(options: Options, name: str, allowed: str, holds: Callable[[Any], bool]) -> None:
    value = getattr(options, name)
    if not holds(value):
        raise PlacementError(f"{name} is {allowed}, not {value!r}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and isfinite(value))


def _is_span(value: Any) -> bool:
    return _is_number(value) and value >= 0 and (value < 1 or value == int(value))


def _is_memory(value: Any) -> bool:
    return _is_number(value) and 0 < value < 1
