"""What a rule is once it has been read: a typed, immutable tree, and its canonical text.

The language itself (grammar, errors) is in `rules`; what a tree selects is in `resolve`.
`str` of a tree is text that reads back as an equal tree.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from loratlas.anatomy.sites import Family

# The families that each word means. `all` is the one word that is not a set of families: it
# is every site inside the blocks except routers.
WORDS: Mapping[str, frozenset[Family]] = {
    "attention": frozenset({Family.ATTENTION, Family.CROSS_ATTENTION}),
    "self_attention": frozenset({Family.ATTENTION}),
    "cross_attention": frozenset({Family.CROSS_ATTENTION}),
    "feed_forward": frozenset({Family.FEED_FORWARD, Family.EXPERT, Family.SHARED_EXPERT}),
    "dense_feed_forward": frozenset({Family.FEED_FORWARD}),
    "expert": frozenset({Family.EXPERT}),
    "shared_expert": frozenset({Family.SHARED_EXPERT}),
    "recurrent": frozenset({Family.RECURRENT}),
    "router": frozenset({Family.ROUTER}),
    "embedding": frozenset({Family.EMBEDDING}),
    "head": frozenset({Family.HEAD}),
}
ALL = "all"

_QUERY_KEY_VALUE = ("q", "k", "v", "qkv", "qk", "qv", "kv")
_ATTENTION_PARTS = (*_QUERY_KEY_VALUE, "o", "q_down", "q_up", "kv_down", "kv_up", "gate")
_FEED_FORWARD_PARTS = ("gate", "up", "gate_up", "down")
PARTS: Mapping[str, tuple[str, ...]] = {
    "attention": _ATTENTION_PARTS,
    "self_attention": _ATTENTION_PARTS,
    "cross_attention": _ATTENTION_PARTS,
    "feed_forward": _FEED_FORWARD_PARTS,
    "dense_feed_forward": _FEED_FORWARD_PARTS,
    "expert": _FEED_FORWARD_PARTS,
    "shared_expert": _FEED_FORWARD_PARTS,
    ALL: tuple(dict.fromkeys([*_ATTENTION_PARTS, *_FEED_FORWARD_PARTS])),
}
# Recurrent blocks have no common parts (in_proj, x_proj, dt_proj, ...): any name may stand there.
FREE_PARTS = frozenset({"recurrent"})

Operator = Literal["|", "-", "&"]
Counter = Literal["first", "last", "every"]
StackName = Literal["encoder", "decoder"]


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexRange:
    """Layers from one index to another, both included; a negative index counts from the end.

    None is an open end. A single index is a range whose two ends are equal.
    """

    first: int | None
    last: int | None

    def __str__(self) -> str:
        if self.first is not None and self.first == self.last:
            return str(self.first)
        return f"{_or_open(self.first)}..{_or_open(self.last)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class PercentRange:
    """Layers i of L with low <= 100 * i / L < high; None is an open end."""

    low: Fraction | None
    high: Fraction | None

    def __str__(self) -> str:
        return f"{_percent(self.low)}..{_percent(self.high)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Layers:
    """``layers(0, 3, 8..11)`` or ``layers(50%..)``: never indices and percentages together."""

    items: tuple[IndexRange, ...] | tuple[PercentRange, ...]

    def __str__(self) -> str:
        return f"layers({', '.join(map(str, self.items))})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Counted:
    """``first(n)``, ``last(n)`` or ``every(k)`` layers of each stack."""

    kind: Counter
    number: int

    def __str__(self) -> str:
        return f"{self.kind}({self.number})"


@dataclass(frozen=True, kw_only=True, slots=True)
class InStack:
    """``encoder`` or ``decoder``."""

    stack: StackName

    def __str__(self) -> str:
        return self.stack


Scope = Layers | Counted | InStack


@dataclass(frozen=True, kw_only=True, slots=True)
class Word:
    """A word of the language, such as ``attention``, or a narrowed one, ``attention.q``."""

    word: str
    part: str = ""

    def __str__(self) -> str:
        return f"{self.word}.{self.part}" if self.part else self.word


@dataclass(frozen=True, kw_only=True, slots=True)
class Names:
    """``names(c_attn, attn.c_proj)``: dotted suffixes of paths, or globs by segment."""

    entries: tuple[str, ...]

    def __str__(self) -> str:
        return f"names({', '.join(self.entries)})"


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """``file(allocated.json)``: the sites of a saved placement, and their ranks."""

    path: str

    def __str__(self) -> str:
        return f'file("{self.path}")'


@dataclass(frozen=True, kw_only=True, slots=True)
class Scoped:
    """An expression narrowed by scopes. Scopes narrow together, in no order."""

    operand: "Expression"
    scopes: tuple[Scope, ...]

    def __str__(self) -> str:
        text = str(self.operand)
        base = f"({text})" if isinstance(self.operand, Combined) else text
        return " @ ".join([base, *map(str, self.scopes)])


@dataclass(frozen=True, kw_only=True, slots=True)
class Combined:
    """Two expressions joined by ``|`` (either), ``-`` (without) or ``&`` (both)."""

    operator: Operator
    left: "Expression"
    right: "Expression"

    @property
    def binding(self) -> int:
        """How tightly the operator binds: ``&`` before ``|`` and ``-``, which are equal."""
        return 2 if self.operator == "&" else 1

    def __str__(self) -> str:
        left = _wrapped(self.left, self.binding)
        right = _wrapped(self.right, self.binding + 1)
        return f"{left} {self.operator} {right}"


Expression = Word | Names | File | Scoped | Combined


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One part of a rule: an expression, and its rank when it states one."""

    expression: Expression
    rank: int | None = None

    def __str__(self) -> str:
        if self.rank is None:
            return str(self.expression)
        return f"{_wrapped(self.expression, 3)}:{self.rank}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """A sentence of the placement language: parts that do not overlap."""

    parts: tuple[Part, ...]

    def __str__(self) -> str:
        return " + ".join(map(str, self.parts))

    def to_yaml(self) -> list[dict[str, Any]]:
        """Return the list of parts, ``[{"rule": "attention", "rank": 16}, ...]``."""
        return [
            {"rule": str(part.expression)} | ({} if part.rank is None else {"rank": part.rank})
            for part in self.parts
        ]


def children(expression: Expression) -> tuple[Expression, ...]:
    """Return the operands of an expression; an atom has none."""
    if isinstance(expression, Combined):
        return (expression.left, expression.right)
    return (expression.operand,) if isinstance(expression, Scoped) else ()


def walk(expression: Expression) -> Iterator[Expression]:
    """Yield an expression and everything inside it, outermost first."""
    yield expression
    for child in children(expression):
        yield from walk(child)


def _wrapped(expression: Expression, binding: int) -> str:
    """Write an operand, in brackets where it binds less tightly than its place asks."""
    loose = isinstance(expression, Combined) and expression.binding < binding
    return f"({expression})" if loose else str(expression)


def _or_open(index: int | None) -> str:
    return "" if index is None else str(index)


def _percent(value: Fraction | None) -> str:
    """Write a percentage; the grammar reads decimals only, so this one always ends."""
    if value is None:
        return ""
    if value.denominator == 1:
        return f"{value.numerator}%"
    digits = next(n for n in range(1, 400) if (value * 10**n).denominator == 1)
    whole, rest = divmod(value.numerator * 10**digits // value.denominator, 10**digits)
    return f"{whole}.{rest:0{digits}d}%"
