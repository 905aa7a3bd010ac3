"""Which scorers are there, by name, and how is one made with its options?"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from loratlas.errors import RequestError, did_you_mean
from loratlas.score.inverted import Inverted
from loratlas.score.names import INVERTED, METHODS, PLACES, require_known
from loratlas.score.scorer import Scorer

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
    require_known(name)
    file, name_of_class = PLACES[name]
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
