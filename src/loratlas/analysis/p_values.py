"""How is a p value written? One place says where digits end, for tables and for sentences."""

_SMALLEST = 1e-4


def p_text(p: float) -> str:
    """Return a p value as it stands in a table: two digits, or that it is below the smallest."""
    return f"< {_SMALLEST:g}" if p < _SMALLEST else f"{p:.2g}"


def p_in_words(p: float) -> str:
    """Return a p value as it stands in a sentence: ``p = 0.031`` or ``p < 0.0001``."""
    return f"p {p_text(p)}" if p < _SMALLEST else f"p = {p_text(p)}"
