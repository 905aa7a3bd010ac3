"""Which letters may stand where a person reads? None that are obeyed, or that cannot be seen.

Control characters move a cursor, clear a screen or rename its window; others turn the direction of
a line around, have no width, or are half of a character. Names, data, configurations and messages
come from elsewhere and may hold any of them.
"""


def printable(text: str, *, keep: str = "") -> str:
    """Return text with every letter that cannot be printed written as its escape.

    Args:
        text: any text.
        keep: letters that stay although they cannot be printed, such as line breaks.
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in keep else ascii(letter)[1:-1] for letter in text
    )
