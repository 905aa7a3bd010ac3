"""Find out where in a transformer LoRA adapters should go.

The names below are loaded when they are first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loratlas.anatomy.read import read
    from loratlas.placement.explain import explain, lint
    from loratlas.placement.placement import place
    from loratlas.train.verify import verify

__all__ = ["explain", "lint", "place", "read", "verify"]

_HOMES = {
    "explain": "loratlas.placement.explain",
    "lint": "loratlas.placement.explain",
    "place": "loratlas.placement.placement",
    "read": "loratlas.anatomy.read",
    "verify": "loratlas.train.verify",
}


def __getattr__(name: str) -> Any:
    """Load a public name from the module it lives in."""
    if name not in _HOMES:
        raise AttributeError(f"module 'loratlas' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
