"""Which sites of a model an expression selects, and why a selection is empty.

Names match by dotted segments: an entry of n segments is held against the last n segments of
a path, each by itself, so that ``c_proj`` matches ``h.0.attn.c_proj`` and not ``xc_proj``.
Within a segment ``*``, ``?`` and ``[...]`` stand for characters; none of them crosses a dot.

Layers count per stack. A layer that is not there is an error for every stack that the
expression reaches: on a model with two stacks of different depth, ``@ encoder`` narrows it.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import reduce
from pathlib import Path

from loratlas.anatomy.sites import Anatomy, Family, Site
from loratlas.errors import PlacementError, did_you_mean
from loratlas.placement.expressions import (
    ALL,
    WORDS,
    Combined,
    Expression,
    File,
    InStack,
    Names,
    Part,
    Rule,
    Scope,
    Scoped,
    Word,
    children,
    walk,
)
from loratlas.placement.layers import layers_of
from loratlas.placement.saved import SavedAdapter, read_saved

Paths = frozenset[str]

# T5 has embeddings inside its blocks (of relative positions): the word decides, not the place.
_NAMED_WHEN_WANTED = (Family.ROUTER, Family.EMBEDDING, Family.HEAD)

# What one fused map holds: asking for a piece of it gets a message that names the whole.
_FUSED: Mapping[str, tuple[str, ...]] = {
    "qkv": ("q", "k", "v"),
    "qk": ("q", "k"),
    "qv": ("q", "v"),
    "kv": ("k", "v"),
    "gate_up": ("gate", "up"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolver:
    """Resolves expressions against one model; remembers what it has resolved.

    Attributes:
        anatomy: the model.
        root: the folder that relative paths in ``file(...)`` start from.
    """

    anatomy: Anatomy
    root: Path
    _selected: dict[Expression, Paths] = field(default_factory=dict)
    _files: dict[File, Mapping[str, SavedAdapter]] = field(default_factory=dict)
    _named: dict[str, Paths] = field(default_factory=dict)
    _ends: dict[str, set[str]] = field(default_factory=dict)

    def select(self, expression: Expression) -> Paths:
        """Return the paths that an expression selects; they may be none.

        Raises:
            PlacementError: a layer, a stack, a name or a file is not there.
        """
        if expression not in self._selected:
            self._selected[expression] = self._select(expression)
        return self._selected[expression]

    def saved(self, file: File) -> Mapping[str, SavedAdapter]:
        """Return the adapters of a saved placement by path."""
        if file not in self._files:
            self._files[file] = read_saved(file, root=self.root, anatomy=self.anatomy)
        return self._files[file]

    def dead_operands(self, rule: Rule) -> list[Expression]:
        """Return the innermost expressions of a rule that select nothing."""
        return [dead for part in rule.parts for dead in self._dead(part.expression)]

    def _dead(self, expression: Expression) -> list[Expression]:
        inside = [dead for child in children(expression) for dead in self._dead(child)]
        return inside if inside or self.select(expression) else [expression]

    def why_empty(self, expression: Expression) -> str:
        """Say why an expression without empty operands of its own selects nothing."""
        if isinstance(expression, Word):
            return f"{expression}: {_why_no_word(expression, self.anatomy)}"
        if isinstance(expression, Scoped):
            return f"{expression}: {expression.operand} has no site in that scope"
        if isinstance(expression, Combined) and expression.operator == "&":
            return f"{expression}: {expression.left} and {expression.right} share no site"
        return f"{expression}: nothing is left"

    def _select(self, expression: Expression) -> Paths:
        if isinstance(expression, Word):
            sites = self.anatomy.sites
            return frozenset(site.path for site in sites if _means(expression, site))
        if isinstance(expression, Names):
            hits = (self.named(entry) for entry in expression.entries)
            return frozenset[str]().union(*hits)
        if isinstance(expression, File):
            return frozenset(self.saved(expression))
        if isinstance(expression, Scoped):
            return self.narrow(self.select(expression.operand), expression)
        left, right = self.select(expression.left), self.select(expression.right)
        if expression.operator == "&":
            return left & right
        return left | right if expression.operator == "|" else left - right

    def named(self, entry: str) -> Paths:
        """Return the paths that one entry of ``names(...)`` matches: at least one.

        Raises:
            PlacementError: the entry matches no site.
        """
        if entry not in self._named:
            hits = self._matching(entry)
            if not hits:
                raise PlacementError(_no_such_name(entry, self.anatomy))
            self._named[entry] = frozenset(hits)
        return self._named[entry]

    def _matching(self, entry: str) -> Collection[str]:
        if set("*?[") & set(entry):
            return [path for path in self.anatomy.by_path if _matches(entry, path)]
        if not self._ends:
            for path in self.anatomy.by_path:
                for end in (path, *ends(path)):
                    self._ends.setdefault(end, set()).add(path)
        return self._ends.get(entry, ())

    def narrow(self, paths: Paths, scoped: Scoped) -> Paths:
        """Return those of the paths that lie in the scopes of an expression."""
        # Stacks first, whatever the order in the text: a layer is looked for only in the
        # stacks that are left.
        sites = [site for site in map(self.anatomy.by_path.__getitem__, paths) if site.in_block]
        for scope in scoped.scopes:
            if isinstance(scope, InStack):
                sites = self._in_stack(sites, scope)
        layers = [scope for scope in scoped.scopes if not isinstance(scope, InStack)]
        reached = sorted({str(site.stack) for site in sites})
        kept = {stack: self._layers(layers, stack, reached) for stack in reached}
        return frozenset(site.path for site in sites if site.layer in kept[str(site.stack)])

    def _in_stack(self, sites: list[Site], scope: InStack) -> list[Site]:
        stacks = self.anatomy.stacks
        if scope.stack not in stacks:
            raise PlacementError(
                f"{self.anatomy.model} has no {scope.stack}; its stacks are {', '.join(stacks)}"
            )
        return [site for site in sites if site.stack == scope.stack]

    def _layers(self, scopes: Sequence[Scope], stack: str, reached: list[str]) -> frozenset[int]:
        """Return the layers of one stack that lie in every scope."""
        total = self.anatomy.stacks[stack]
        try:
            chosen = [layers_of(scope, total) for scope in scopes]
        except LookupError as error:
            hint = f"; narrow the rule with @ {' or @ '.join(reached)}" if len(reached) > 1 else ""
            raise PlacementError(
                f"{error.args[0]}: the {stack} of {self.anatomy.model} has {total} layers, "
                f"0..{total - 1}{hint}"
            ) from None
        return reduce(frozenset.intersection, chosen, frozenset(range(total)))


def ranks_of(rule: Rule, resolver: Resolver, rank: int) -> dict[str, int]:
    """Return the rank of every site that a rule selects.

    Args:
        rule: the rule.
        resolver: the model to resolve it against.
        rank: the rank of a part without one, for sites to which no file of it gives a rank.

    Raises:
        PlacementError: the rule does not fit the model, or its parts overlap.
    """
    selected = [(part, resolver.select(part.expression)) for part in rule.parts]
    _refuse_overlap(selected)
    ranks: dict[str, int] = {}
    for part, paths in selected:
        ranks |= _ranks_of_part(part, paths, resolver, rank)
    if not ranks:
        reasons = "; ".join(map(resolver.why_empty, resolver.dead_operands(rule)))
        raise PlacementError(f"the rule {rule} selects no site. {reasons}")
    return ranks


def _ranks_of_part(part: Part, paths: Paths, resolver: Resolver, rank: int) -> dict[str, int]:
    if part.rank is not None:
        return dict.fromkeys(paths, part.rank)
    ranks = dict.fromkeys(paths, rank)
    files = [node for node in walk(part.expression) if isinstance(node, File)]
    given: dict[str, File] = {}
    for file in files:
        saved = resolver.saved(file)
        for path in sorted(paths & saved.keys()):
            first = given.setdefault(path, file)
            if saved[path].rank != resolver.saved(first)[path].rank:
                raise PlacementError(f"{first} and {file} give {path} different ranks")
            ranks[path] = saved[path].rank
    return ranks


def _refuse_overlap(selected: list[tuple[Part, Paths]]) -> None:
    for number, (part, paths) in enumerate(selected):
        for other, others in selected[:number]:
            both = sorted(paths & others)
            if both:
                shown = ", ".join(both[:3]) + (", ..." if len(both) > 3 else "")
                raise PlacementError(
                    f"the parts {other} and {part} overlap in {len(both)} sites: {shown}; "
                    "a site takes one adapter (a - b leaves b out)"
                )


def _means(word: Word, site: Site) -> bool:
    """Whether a word means a site. `all` is what stands in a block, less `_NAMED_WHEN_WANTED`.

    A bare parameter of unknown role is left out of `all` too: PEFT would read its first
    dimension as experts, which nobody knows it to be. A name reaches it.
    """
    if word.part and word.part != site.role.part:
        return False
    if word.word == ALL:
        unknown = site.kind == "expert" and site.role.family == Family.OTHER
        return site.in_block and site.role.family not in _NAMED_WHEN_WANTED and not unknown
    return site.role.family in WORDS[word.word]


def _matches(glob: str, path: str) -> bool:
    patterns, segments = glob.split("."), path.split(".")
    tail = segments[-len(patterns) :]
    return len(segments) >= len(patterns) and all(map(fnmatchcase, tail, patterns))


def ends(path: str) -> Iterator[str]:
    """Yield every shorter dotted suffix of a path, longest first."""
    while "." in path:
        path = path.split(".", 1)[1]
        yield path


def roles_of(sites: Sequence[Site]) -> str:
    """Return the roles of sites with their numbers, such as ``attention.q (24), head (1)``."""
    counts = Counter(str(site.role) for site in sites)
    return ", ".join(f"{role} ({number})" for role, number in counts.items())


def _why_no_word(word: Word, anatomy: Anatomy) -> str:
    families = WORDS.get(word.word, frozenset(Family))
    same = [site for site in anatomy.sites if site.role.family in families]
    if not same:
        return f"{anatomy.model} has no {word.word} site; its roles are {roles_of(anatomy.sites)}"
    if word.word == ALL and not word.part:
        return f"{anatomy.model} has no site inside its blocks; its roles are {roles_of(same)}"
    whole = next((s.role for s in same if word.part in _FUSED.get(s.role.part, ())), None)
    listed = f"its {word.word} roles are {roles_of(same)}"
    if whole is None:
        return f"{anatomy.model} has no {word}; {listed}"
    *some, last = _FUSED[whole.part]
    return f"{anatomy.model} fuses {', '.join(some)} and {last} in {whole}; {listed}"


def _no_such_name(entry: str, anatomy: Anatomy) -> str:
    length = entry.count(".") + 1
    tails = {".".join(path.split(".")[-length:]): None for path in anatomy.by_path}
    last = list(dict.fromkeys(path.rsplit(".", 1)[-1] for path in anatomy.by_path))
    shown = ", ".join(last[:12]) + (", ..." if len(last) > 12 else "")
    near = did_you_mean(entry, tails) or did_you_mean(entry, last)
    dots = "; * stays within one dotted segment" if "*" in entry else ""
    return f"names({entry}) matches no site of {anatomy.model}{near}{dots}; names there: {shown}"
