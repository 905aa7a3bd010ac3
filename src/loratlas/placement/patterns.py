"""Which names do the regular expressions of a configuration match, within a time bound?

PEFT hands them to `re`, which can run for years on a short name, cannot be interrupted from a
thread, and has no twin with the same syntax and a time limit. So an expression that could be
slow is evaluated by a second interpreter, which is stopped when its time is up.
"""

import json
import re
import subprocess
import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from loratlas.errors import PlacementError

TIME_LIMIT_SECONDS = 5.0
_WORKER = Path(__file__).with_name("regex_worker.py")
# What makes an expression slow is repetition within repetition. With at most two repetitions and
# two groups, and no group repeated, the steps grow with the third power of a name's length at most.
_MOST_REPETITIONS, _MOST_GROUPS, _MOST_CHOICES = 2, 2, 100
_LONGEST_SHOWN = 80


@dataclass(frozen=True, kw_only=True, slots=True)
class Hit:
    """One expression that matches a name: its number in the list, and its group ``idx``."""

    number: int
    index: str | None


def matches(
    expressions: Sequence[str],
    names: Iterable[str],
    *,
    field: str,
    form: str = "{}",
    whole: bool = False,
) -> dict[str, list[Hit]]:
    """Return, for each name, the expressions that match it, in their order.

    Args:
        expressions: regular expressions in the syntax of `re`.
        names: what they are held against.
        field: where they stand in the configuration; messages name it.
        form: what is made of each expression before it is used, ``{}`` standing for it.
        whole: whether an expression has to match the whole name, or its beginning.

    Raises:
        PlacementError: an expression is not valid, or they take longer than the time limit.
    """
    listed = list(names)
    patterns = [form.replace("{}", expression) for expression in expressions]
    compiled = [
        _compiled(expression, pattern, field)
        for expression, pattern in zip(expressions, patterns, strict=True)
    ]
    if all(map(_is_quick, expressions)):
        return {name: _here(compiled, name, whole) for name in listed}
    found = _elsewhere(patterns, listed, whole, _refusal(expressions, len(listed), field))
    return {
        name: [Hit(number=number, index=index) for number, index in hits]
        for name, hits in zip(listed, found, strict=True)
    }


def _is_quick(expression: str) -> bool:
    """Whether an expression is too simple to be slow; escaped characters count as the others."""
    return (
        len(re.findall(r"[*+?{]", expression)) <= _MOST_REPETITIONS
        and expression.count("(") <= _MOST_GROUPS
        and expression.count("|") <= _MOST_CHOICES
        and not re.search(r"\)[*+?{]", expression)
    )


def _compiled(expression: str, pattern: str, field: str) -> re.Pattern[str]:
    try:
        # What a later Python will read in another way is no matter of the person who asks.
        with warnings.catch_warnings(action="ignore"):
            return re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise PlacementError(
            f"{field}: {_shown(expression)} is not a valid regular expression: {error}"
        ) from None


def _here(compiled: Sequence[re.Pattern[str]], name: str, whole: bool) -> list[Hit]:
    match = re.Pattern.fullmatch if whole else re.Pattern.match
    found = ((number, match(pattern, name)) for number, pattern in enumerate(compiled))
    return [Hit(number=n, index=m.groupdict().get("idx")) for n, m in found if m]


def _elsewhere(
    patterns: Sequence[str], names: Sequence[str], whole: bool, refusal: str
) -> list[list[tuple[int, str | None]]]:
    asked = json.dumps({"patterns": patterns, "names": names, "whole": whole})
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(_WORKER)],
            input=asked,
            capture_output=True,
            check=True,
            encoding="utf-8",
            timeout=TIME_LIMIT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise PlacementError(refusal) from None
    found: list[list[tuple[int, str | None]]] = json.loads(done.stdout)
    return found


def _refusal(expressions: Sequence[str], num_names: int, field: str) -> str:
    number = len(expressions)
    what = _shown(expressions[0]) if number == 1 else f"{number} regular expressions"
    return (
        f"{field}: {what} could not be held against {num_names} names within "
        f"{TIME_LIMIT_SECONDS:g} seconds; PEFT has no such limit and would hang"
    )


def _shown(expression: str) -> str:
    short = expression if len(expression) <= _LONGEST_SHOWN else expression[:_LONGEST_SHOWN] + "..."
    return repr(short)
