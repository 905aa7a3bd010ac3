"""Which scorers are there, by name, and how is one made with its options?"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from loratlas.errors import RequestError, did_you_mean
from loratlas.score.inverted import Inverted
from loratlas.score.scorer import Scorer

_PLACES = {
    "gradient": ("gradient", "Gradient"),
    "gradient_normalised": ("gradient", "GradientNormalised"),
    "gradient_spectrum": ("spectrum", "GradientSpectrum"),
    "lora_probe": ("lora_probe", "LoraProbe"),
    "plop": ("plop", "Plop"),
    "plop_site": ("plop", "PlopSite"),
    "eva": ("eva", "Eva"),
    "block_influence": ("block_influence", "BlockInfluence"),
    "para": ("para", "Para"),
    "uniform": ("controls", "Uniform"),
    "random": ("controls", "Random"),
    "parameters": ("controls", "Parameters"),
    "d_in": ("controls", "InputWidth"),
    "depth": ("controls", "Depth"),
}
"""File and class of each method; a file is loaded when its method is asked for."""
METHODS = tuple(_PLACES)
"""Names of the methods; ``inverted:`` before one of them turns it upside down."""
INVERTED = "inverted:"

_NO_OPTIONS: Mapping[str, object] = MappingProxyType({})
_STRICT = ConfigDict(strict=True, allow_inf_nan=False)


def scorer(name: str, options: Mapping[str, object] = _NO_OPTIONS) -> Scorer:
    """Return a scorer.

    Args:
        name: one of `METHODS`, or ``inverted:`` and one of them.
        options: of the method, by name; those that are left out have its defaults.

    Raises:
        RequestError: there is no such method or option, or the option has another type.
    """
    if name.startswith(INVERTED):
        return Inverted(scorer(name.removeprefix(INVERTED), options))
    make = _maker(name)
    _require_options(name, make, options)
    return make(**options)


def scorers() -> Iterator[Scorer]:
    """Yield every scorer with its defaults."""
    yield from map(scorer, METHODS)


def _maker(name: str) -> Callable[..., Scorer]:
    if name not in _PLACES:
        raise RequestError(
            f"{name}: there is no such method{did_you_mean(name, METHODS)}; it is one of "
            f"{', '.join(METHODS)}, or {INVERTED} and one of them"
        )
    file, name_of_class = _PLACES[name]
    make: Callable[..., Scorer] = getattr(import_module(f"loratlas.score.{file}"), name_of_class)
    return make


def _require_options(name: str, make: Callable[..., Scorer], options: Mapping[str, object]) -> None:
    allowed = inspect.signature(make).parameters
    for key, value in options.items():
        if key not in allowed:
            there = f"it has {', '.join(allowed)}" if allowed else "it has none"
            raise RequestError(f"{name} has no option {key}{did_you_mean(key, allowed)}; {there}")
        kind: Any = allowed[key].annotation
        try:
            TypeAdapter(kind, config=_STRICT).validate_python(value)
        except ValidationError as error:
            said = error.errors(include_url=False)[0]["msg"].lower()
            raise RequestError(f"{name}: option {key}: {value!r}: {said}") from None
