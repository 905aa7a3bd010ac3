"""How the language tells a person what it could not read: place, finding, nearest word."""

import re
from typing import TYPE_CHECKING

from loratlas.errors import did_you_mean
from loratlas.placement.expressions import ALL, PARTS, WORDS

if TYPE_CHECKING:
    from lark import UnexpectedInput

_FUNCTIONS = ("names", "file")
_SCOPES = ("layers", "first", "last", "every", "encoder", "decoder")
_VOCABULARY = (ALL, *WORDS)
# What a person calls the terminals of the grammar, in the order in which they are listed.
_TERMINALS = {
    "WORD": "a word such as attention",
    "NAMES": "names(",
    "FILE": "file(",
    "LAYERS": "layers(",
    "COUNTER": "first( last( every(",
    "STACK": "encoder decoder",
    "NAME": "a module name",
    "PATH": "a file",
    "BOUND": "a layer (3, -1, 8..11) or a share (50%..)",
    "DOTS": "..",
    "NUMBER": "a number",
    "EITHER": "| -",
    "BOTH": "&",
    "AT": "@",
    "COLON": ":",
    "PLUS": "+",
    "COMMA": ",",
    "LPAR": "(",
    "RPAR": ")",
    "$END": "the end",
}


def point_at(text: str, position: int, message: str) -> str:
    """Return the message with its column, the line of the text, and a caret below the place."""
    start = text.rfind("\n", 0, position) + 1
    line = text[start:].split("\n", 1)[0]
    column = position - start
    number = text.count("\n", 0, position) + 1
    where = f"line {number}, column {column + 1}" if "\n" in text else f"column {column + 1}"
    return f"{message} ({where})\n  {line}\n  {' ' * column}^"


def unknown_word(text: str, position: int, word: str) -> str:
    """Say that a word is not one of the language, and which one was probably meant."""
    hyphened = _hyphened(text, position)
    if "-" in hyphened and (near := did_you_mean(hyphened.replace("-", "_"), _VOCABULARY)):
        return point_at(text, position, f"unknown word {hyphened}{near}; {_known_words()}")
    narrowed = re.search(r"(\w+)-$", text[:position])
    if narrowed and word in PARTS.get(narrowed.group(1), ()):
        near = f" (did you mean {narrowed.group(1)}.{word}?)"
        return point_at(text, position, f"unknown word {word}{near}; {_known_words()}")
    if word in _SCOPES:
        return point_at(text, position, f"{word} is a scope and stands behind @: all @ {word}")
    near = did_you_mean(word, _VOCABULARY)
    hint = "" if near else "; the name of a module is written names(...)"
    return point_at(text, position, f"unknown word {word}{near}; {_known_words()}{hint}")


def misread(text: str, error: "UnexpectedInput") -> str:
    """Say what stands where the grammar cannot go on, what may stand there, and a hint."""
    expected = _expected(error)
    position = _position(text, error)
    match = re.match(r"\w+|\S", text[position:])
    if match is None:
        return point_at(text, position, f"the rule ends too early; allowed: {_allowed(expected)}")
    found = match.group()
    hint = _hint(found, _word_before(text, position), expected)
    told = f"cannot read {found!r} here{hint}; allowed: {_allowed(expected)}"
    return point_at(text, position, told)


def _position(text: str, error: "UnexpectedInput") -> int:
    at_end = getattr(getattr(error, "token", None), "type", "") == "$END"
    position = error.pos_in_stream
    return len(text.rstrip()) if at_end or position is None else position


def _expected(error: "UnexpectedInput") -> set[str]:
    for attribute in ("accepts", "expected", "allowed"):
        names = getattr(error, attribute, None)
        if names:
            return set(names)
    return set()


def _allowed(terminals: set[str]) -> str:
    shown = [name for terminal, name in _TERMINALS.items() if terminal in terminals]
    return "  ".join(shown)


def _hint(found: str, before: str, expected: set[str]) -> str:
    """Return a hint for the mistakes that are likely at this place, or an empty string."""
    if "LAYERS" in expected and found.isidentifier():
        return did_you_mean(found, _SCOPES)
    if found == "(" and before in _SCOPES:
        return f" ({before}(...) is a scope and stands behind @: all @ {before}(...))"
    if found == "(" and before:
        return did_you_mean(before, _FUNCTIONS)
    if found == "-" and "DOTS" in expected:
        return " (a range is written 3..7)"
    if "EITHER" not in expected:
        return ""
    if before and f"{before}_{found}" in _VOCABULARY:
        return f" (did you mean {before}_{found}?)"
    if found in (",", "and", "or", "/") or found.isidentifier():
        return " (join two with |, or with + when each has its own rank)"
    return ""


def _word_before(text: str, position: int) -> str:
    match = re.search(r"(\w+)\s*$", text[:position])
    return match.group(1) if match else ""


def _hyphened(text: str, position: int) -> str:
    """Return the run of word characters and hyphens that begins at a position."""
    match = re.match(r"[\w-]+", text[position:])
    return match.group() if match else ""


def _known_words() -> str:
    return f"the words are {', '.join(_VOCABULARY)}"
