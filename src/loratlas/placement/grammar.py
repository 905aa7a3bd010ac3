"""How the text of a rule becomes a tree: the grammar, and the checks that need the place.

lark is imported, and its parser built, when the first rule is read.
"""

import re
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, NoReturn, cast

from loratlas.errors import RuleError, did_you_mean
from loratlas.placement.expressions import (
    ALL,
    FREE_PARTS,
    PARTS,
    WORDS,
    Combined,
    Counted,
    Counter,
    Expression,
    File,
    IndexRange,
    InStack,
    Layers,
    Names,
    Operator,
    Part,
    PercentRange,
    Rule,
    Scope,
    Scoped,
    StackName,
    Word,
)
from loratlas.placement.wording import misread, point_at, unknown_word

if TYPE_CHECKING:
    from lark import Lark, Token, Tree

# What reads, writes and resolves a rule takes up to four of Python's 1,000 frames for each level.
# At this depth a caller that is itself 300 frames deep (a notebook, a test) still gets an answer;
# names(...), file(...) and parts take any number of entries at one level.
_DEEPEST = 150
# Python itself refuses to read a number of more than 4,300 digits.
MOST_DIGITS = 100

_GRAMMAR = r"""
rule: part ("+" part)*
part: expr [":" NUMBER]
?expr: term | expr EITHER term -> combined
?term: factor | term BOTH factor -> combined
?factor: atom | atom ("@" scope)+ -> scoped
?atom: WORD -> word
     | "names" "(" NAME ("," NAME)* ")" -> names
     | "file" "(" (PATH | STRING) ")" -> file
     | "(" expr ")"
?scope: "layers" "(" item ("," item)* ")" -> layers
      | COUNTER "(" NUMBER ")" -> counted
      | STACK -> stack
item: BOUND | BOUND DOTS BOUND | BOUND DOTS | DOTS BOUND

EITHER: "|" | "-"
BOTH: "&"
WORD: /[A-Za-z_]\w*(\.\w+)*/
NAME: /[^\s(),"]+/
PATH: /[^\s(),"][^(),"\n]*/
STRING: /"[^"\n]*"/
COUNTER: "first" | "last" | "every"
STACK: "encoder" | "decoder"
BOUND: /-?\d+(\.\d+)?%?/
DOTS: ".."
NUMBER: /-?\d+/
%ignore /\s+/
"""


@cache
def _parser() -> "Lark":
    """Build the parser once; lark is imported only when a rule is read."""
    from lark import Lark

    return Lark(_GRAMMAR, start="rule", parser="lalr", maybe_placeholders=True)


def read_text(text: str) -> Rule:
    """Read a rule from text.

    Raises:
        RuleError: the text cannot be read; the message points at the place.
    """
    from lark import UnexpectedInput

    if not text.strip():
        raise RuleError("the rule is empty; it needs a word such as all, attention, feed_forward")
    try:
        tree = _parser().parse(text)
    except UnexpectedInput as error:
        raise RuleError(misread(text, error)) from None
    _refuse_depth(tree)
    return _Builder(text).rule(tree)


def _refuse_depth(tree: "Tree[Token]") -> None:
    """Refuse a rule that nests deeper than what reads it: a chain of n operators is n deep."""
    level, depth = [tree], 0
    while level:
        level = [child for each in level for child in _trees(each)]
        depth += 1
        if depth > _DEEPEST:
            raise RuleError(
                f"the rule has more than {_DEEPEST} operators in a row or within one another; a "
                "list of modules is written names(a, b, ...), and a long list of sites is a file"
            )


class _Builder:
    """Turns lark's tree into ours, checking words and numbers where they stand in the text."""

    def __init__(self, text: str) -> None:
        self._text = text

    def rule(self, tree: "Tree[Token]") -> Rule:
        return Rule(parts=tuple(self._part(child) for child in _trees(tree)))

    def _part(self, tree: "Tree[Token]") -> Part:
        expression, rank = tree.children
        return Part(
            expression=self._expression(cast("Tree[Token]", expression)),
            rank=None if rank is None else self._positive(cast("Token", rank), "a rank"),
        )

    def _expression(self, tree: "Tree[Token]") -> Expression:
        build: dict[str, Callable[[Tree[Token]], Expression]] = {
            "combined": self._combined,
            "scoped": self._scoped,
            "word": self._word,
            "names": self._names,
            "file": self._file,
        }
        return build[str(tree.data)](tree)

    def _combined(self, tree: "Tree[Token]") -> Expression:
        left, operator, right = tree.children
        return Combined(
            operator=cast("Operator", str(operator)),
            left=self._expression(cast("Tree[Token]", left)),
            right=self._expression(cast("Tree[Token]", right)),
        )

    def _scoped(self, tree: "Tree[Token]") -> Expression:
        operand, *scopes = _trees(tree)
        inner = self._expression(operand)
        read = tuple(self._scope(scope) for scope in scopes)
        if isinstance(inner, Scoped):  # (x @ a) @ b: scopes narrow together
            return Scoped(operand=inner.operand, scopes=inner.scopes + read)
        return Scoped(operand=inner, scopes=read)

    def _word(self, tree: "Tree[Token]") -> Word:
        (token,) = _tokens(tree)
        word, _, part = str(token).partition(".")
        if word not in WORDS and word != ALL:
            raise RuleError(unknown_word(self._text, token.start_pos or 0, word))
        if part and word not in FREE_PARTS and part not in PARTS.get(word, ()):
            allowed = PARTS.get(word, ())
            known = f"its parts are {', '.join(allowed)}" if allowed else "it has no parts"
            self._fail(token, f"{word} has no part {part}{did_you_mean(part, allowed)}; {known}")
        return Word(word=word, part=part)

    def _names(self, tree: "Tree[Token]") -> Names:
        for token in _tokens(tree):
            if not re.fullmatch(r"[\w*?\[\]!-]+(\.[\w*?\[\]!-]+)*", token):
                self._fail(
                    token,
                    f"{token} is no name: names takes dotted suffixes (attn.c_proj) or globs "
                    "(h.*.mlp.c_*), no regular expressions",
                )
        return Names(entries=tuple(map(str, _tokens(tree))))

    def _file(self, tree: "Tree[Token]") -> File:
        (token,) = _tokens(tree)
        path = token.strip().strip('"')
        if not path.strip():
            self._fail(token, "file(...) needs the path of a saved placement")
        return File(path=path)

    def _scope(self, tree: "Tree[Token]") -> Scope:
        if tree.data == "layers":
            return self._layers(tree)
        if tree.data == "stack":
            return InStack(stack=cast("StackName", str(tree.children[0])))
        kind, number = _tokens(tree)
        count = self._positive(number, f"the number in {kind}(...)")
        return Counted(kind=cast("Counter", str(kind)), number=count)

    def _layers(self, tree: "Tree[Token]") -> Layers:
        items = [self._item(item) for item in _trees(tree)]
        indices = tuple(item for item in items if isinstance(item, IndexRange))
        percentages = tuple(item for item in items if isinstance(item, PercentRange))
        if indices and percentages:
            token = next(iter(_tokens(_trees(tree)[0])))
            self._fail(token, "one list of layers holds indices or percentages, not both")
        return Layers(items=indices or percentages)

    def _item(self, tree: "Tree[Token]") -> IndexRange | PercentRange:
        tokens = _tokens(tree)
        bounds = [token for token in tokens if token.type == "BOUND"]
        if len(tokens) == 1:
            if "%" in tokens[0]:
                self._fail(tokens[0], f"a percentage needs a range, such as {tokens[0]}..")
            index = self._index(tokens[0])
            return IndexRange(first=index, last=index)
        low = bounds[0] if tokens[0].type == "BOUND" else None
        high = bounds[-1] if tokens[-1].type == "BOUND" else None
        if any("%" in bound for bound in bounds):
            return self._percentages(low, high)
        return self._indices(low, high)

    def _indices(self, low: "Token | None", high: "Token | None") -> IndexRange:
        first = None if low is None else self._index(low)
        last = None if high is None else self._index(high)
        backwards = first is not None and last is not None and first > last
        if backwards and (cast(int, first) < 0) == (cast(int, last) < 0):
            self._fail(cast("Token", low), f"{low}..{high} is empty; a range goes upwards")
        return IndexRange(first=first, last=last)

    def _percentages(self, low: "Token | None", high: "Token | None") -> PercentRange:
        first = None if low is None else self._percentage(low)
        last = None if high is None else self._percentage(high)
        if first is not None and last is not None and first >= last:
            self._fail(cast("Token", low), f"{low}..{high} is empty; a range goes upwards")
        return PercentRange(low=first, high=last)

    def _index(self, token: "Token") -> int:
        if "." in token:
            self._fail(token, f"{token} is no layer; layers are whole numbers")
        return self._integer(token)

    def _integer(self, token: "Token") -> int:
        if len(token) > MOST_DIGITS:
            self._fail(token, f"a number of {len(token)} digits; at most {MOST_DIGITS} are read")
        return int(token)

    def _percentage(self, token: "Token") -> Fraction:
        if "%" not in token:
            self._fail(token, f"both ends of a range are percentages or neither; not {token}")
        if len(token) > MOST_DIGITS:
            self._fail(token, f"a number of {len(token)} digits; at most {MOST_DIGITS} are read")
        value = Fraction(token.rstrip("%"))
        if not 0 <= value <= 100:
            self._fail(token, f"{token} is no share of the layers; percentages go from 0% to 100%")
        return value

    def _positive(self, token: "Token", what: str) -> int:
        number = self._integer(token)
        if number < 1:
            self._fail(token, f"{what} is a positive integer, not {token}")
        return number

    def _fail(self, token: "Token", message: str) -> NoReturn:
        raise RuleError(point_at(self._text, token.start_pos or 0, message))


def _trees(tree: "Tree[Token]") -> "list[Tree[Token]]":
    return [child for child in tree.children if not isinstance(child, str) and child is not None]


def _tokens(tree: "Tree[Token]") -> "list[Token]":
    return [child for child in tree.children if isinstance(child, str)]
