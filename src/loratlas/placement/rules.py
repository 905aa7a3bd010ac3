"""The language of rules: text or its YAML form → `Rule`, or an error that points at the place.

::

    rule   := part ("+" part)*            part := expr (":" rank)?
    expr   := term (("|" | "-") term)*    left to right
    term   := factor ("&" factor)*        factor := atom ("@" scope)*      @ binds tightest
    atom   := "all" | WORD | ROLE | names(...) | file(...) | "(" expr ")"
    scope  := layers(0, 3, 8..11) | layers(50%..) | first(n) | last(n) | every(k)
            | encoder | decoder

`names` takes dotted suffixes or globs (see `resolve`), `file` a saved placement, whose path
may be quoted. A range of indices may have an open end too: ``layers(8..)``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from loratlas.errors import RuleError, did_you_mean
from loratlas.placement.expressions import Part, Rule
from loratlas.placement.grammar import MOST_DIGITS, read_text

Source = str | Sequence[Any] | Mapping[str, Any] | Rule


def parse(rule: Source) -> Rule:
    """Read a rule from text, or from its YAML form.

    Args:
        rule: text; a list of parts ``[{"rule": "attention", "rank": 16}, ...]``; a mapping
            ``{"parts": [...]}`` around such a list; or a rule, which is returned as it is.

    Raises:
        RuleError: the rule cannot be read; the message points at the place.
    """
    if isinstance(rule, Rule):
        return rule
    if isinstance(rule, str):
        return read_text(rule)
    if isinstance(rule, Mapping):
        return _read_parts(_parts_of(rule))
    if isinstance(rule, Sequence):
        return _read_parts(rule)
    raise RuleError(f"a rule is text or a list of parts, not {_kind(rule)}: {rule!r}")


def _parts_of(data: Mapping[str, Any]) -> Sequence[Any]:
    if None in data.values():
        given = ", ".join(map(str, data))
        raise RuleError(
            f"quote this rule: without quotes YAML reads {{{given}}} as keys without values"
        )
    unknown = next((key for key in data if key != "parts"), None)
    if unknown is not None:
        raise RuleError(
            f"unknown key {unknown}{did_you_mean(str(unknown), ['parts'])}; a rule with parts is "
            "written parts: [{rule: attention, rank: 16}, ...]"
        )
    parts = data.get("parts")
    if isinstance(parts, str) or not isinstance(parts, Sequence):
        raise RuleError(f"parts is a list of parts, not {_kind(parts)}: {parts!r}")
    return parts


def _read_parts(data: Sequence[Any]) -> Rule:
    if not data:
        raise RuleError("a list of parts needs at least one part: [{rule: attention, rank: 16}]")
    return Rule(parts=tuple(_read_part(item, number) for number, item in enumerate(data, 1)))


def _read_part(item: Any, number: int) -> Part:
    if not isinstance(item, Mapping) or not isinstance(item.get("rule"), str):
        raise RuleError(f"part {number} is written {{rule: attention, rank: 16}}, not {item!r}")
    unknown = next((key for key in item if key not in ("rule", "rank")), None)
    if unknown is not None:
        raise RuleError(
            f"part {number}: unknown key {unknown}{did_you_mean(str(unknown), ['rule', 'rank'])}; "
            "a part has rule and rank"
        )
    rule = read_text(item["rule"])
    if len(rule.parts) != 1:
        raise RuleError(f"part {number}: {item['rule']!r} holds several parts; list each by itself")
    (part,) = rule.parts
    if "rank" not in item:
        return part
    if part.rank is not None:
        raise RuleError(f"part {number}: its rank is given twice, :{part.rank} and rank")
    return Part(expression=part.expression, rank=_rank_of(item["rank"], number))


def _rank_of(rank: Any, number: int) -> int:
    if isinstance(rank, int) and abs(rank) >= 10**MOST_DIGITS:
        raise RuleError(f"part {number}: a rank has at most {MOST_DIGITS} digits")
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise RuleError(f"part {number}: a rank is a positive integer, not {rank!r}")
    return rank


def _kind(value: Any) -> str:
    return "nothing" if value is None else type(value).__name__
