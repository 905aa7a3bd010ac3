"""How are names, counts and figures put into sentences?"""

from collections.abc import Sequence

_MOST_NAMED = 5


def listed(names: Sequence[str]) -> str:
    """Return names as a person lists them: ``a``, ``a and b``, ``a, b and c``, ``a, b and 7 more``.

    Args:
        names: at least one.
    """
    if len(names) > _MOST_NAMED:
        left = len(names) - _MOST_NAMED + 1
        names = [*names[: _MOST_NAMED - 1], f"{left} more"]
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def counted(number: int, noun: str) -> str:
    """Return a count with its noun: ``1 trial``, ``12 trials``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def sentence(text: str) -> str:
    """Return a line with a full stop at its end."""
    return text if text.endswith((".", "!", "?")) else f"{text}."
