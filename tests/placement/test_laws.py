"""Laws that hold for every rule: round trips, and the algebra of selections and placements."""

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

import anatomies
from loratlas.errors import PlacementError
from loratlas.placement.explain import read_peft
from loratlas.placement.expressions import (
    Combined,
    Counted,
    IndexRange,
    InStack,
    Layers,
    Names,
    Part,
    PercentRange,
    Rule,
    Scoped,
    Word,
)
from loratlas.placement.peft_config import adapter_config
from loratlas.placement.placement import Adapter, Placement, place
from loratlas.placement.resolve import Resolver
from loratlas.placement.rules import parse

T5 = anatomies.t5(encoder=4, decoder=4)
LAWS = settings(max_examples=150, deadline=None, derandomize=True)

index = st.integers(-4, 3)
single = index.map(lambda i: IndexRange(first=i, last=i))
span = st.tuples(st.integers(0, 3), st.integers(0, 3)).map(
    lambda ends: IndexRange(first=min(ends), last=max(ends))
)
open_span = st.one_of(
    index.map(lambda i: IndexRange(first=i, last=None)),
    index.map(lambda i: IndexRange(first=None, last=i)),
)
thousandths = st.integers(0, 99_999).map(lambda n: Fraction(n, 1000))
percent = st.tuples(thousandths, thousandths).filter(lambda p: p[0] < p[1]).map(
    lambda p: PercentRange(low=p[0], high=p[1])
) | thousandths.map(lambda p: PercentRange(low=p, high=None))
scopes = st.one_of(
    st.lists(st.one_of(single, span, open_span), min_size=1, max_size=3).map(
        lambda items: Layers(items=tuple(items))
    ),
    st.lists(percent, min_size=1, max_size=2).map(lambda items: Layers(items=tuple(items))),
    st.builds(Counted, kind=st.sampled_from(["first", "last", "every"]), number=st.integers(1, 4)),
    st.builds(InStack, stack=st.sampled_from(["encoder", "decoder"])),
)
atoms = st.one_of(
    st.sampled_from(
        [
            Word(word="all"),
            Word(word="attention"),
            Word(word="attention", part="q"),
            Word(word="cross_attention"),
            Word(word="feed_forward", part="down"),
            Word(word="expert"),
            Word(word="head"),
        ]
    ),
    st.lists(
        st.sampled_from(["q", "wi", "layer.1.*.v", "block.[01].*.*.*.k"]), min_size=1, max_size=2
    )
    .map(tuple)
    .map(lambda entries: Names(entries=entries)),
)


def scoped(operand, chosen):
    inner, before = (
        (operand.operand, operand.scopes) if isinstance(operand, Scoped) else (operand, ())
    )
    return Scoped(operand=inner, scopes=before + tuple(chosen))


expressions = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.builds(Combined, operator=st.sampled_from(["|", "-", "&"]), left=inner, right=inner),
        st.builds(scoped, inner, st.lists(scopes, min_size=1, max_size=2)),
    ),
    max_leaves=6,
)
rules = st.lists(
    st.builds(Part, expression=expressions, rank=st.none() | st.integers(1, 99)),
    min_size=1,
    max_size=3,
).map(lambda parts: Rule(parts=tuple(parts)))


def selected(rule):
    resolver = Resolver(anatomy=T5, root=None)
    return [(part.rank, resolver.select(part.expression)) for part in rule.parts]


@LAWS
@given(rules)
def test_text_and_yaml_read_back_as_the_same_rule(rule):
    assert parse(str(rule)) == rule
    assert parse(rule.to_yaml()) == rule
    assert selected(parse(str(rule))) == selected(rule) == selected(parse(rule.to_yaml()))


@LAWS
@given(expressions, expressions, expressions)
def test_selections_follow_the_laws_of_sets(a, b, c):
    def pick(operator, left, right):
        return Combined(operator=operator, left=left, right=right)

    def sites(expression):
        return Resolver(anatomy=T5, root=None).select(expression)

    assert sites(pick("|", a, b)) == sites(pick("|", b, a))
    assert sites(pick("&", a, b)) == sites(pick("&", b, a))
    assert not sites(pick("-", a, b)) & sites(b)
    assert sites(pick("|", pick("-", a, b), pick("&", a, b))) == sites(a)
    assert sites(pick("-", a, pick("|", b, c))) == sites(pick("-", pick("-", a, b), c))


@LAWS
@given(expressions, st.lists(scopes, min_size=2, max_size=3))
def test_scopes_narrow_in_any_order(operand, chosen):
    def sites(order):
        return Resolver(anatomy=T5, root=None).select(scoped(operand, order))

    assert sites(chosen) == sites(chosen[::-1]) <= sites(chosen[:1])


placements = st.dictionaries(st.sampled_from(T5.sites), st.integers(1, 2), max_size=8).map(
    lambda ranks: Placement(
        anatomy=T5,
        adapters=tuple(
            Adapter(site=site, rank=rank, alpha=2 * rank) for site, rank in ranks.items()
        ),
        scaling="constant",
    )
)


def attempt(operation):
    try:
        return operation()
    except PlacementError:
        return None


@LAWS
@given(placements, placements)
def test_placements_follow_the_laws_of_sets(a, b):
    assert attempt(lambda: a | b) == attempt(lambda: b | a)
    assert attempt(lambda: a & b) == attempt(lambda: b & a)
    assert not (a - b).by_path.keys() & b.by_path.keys()
    assert (a - b).by_path.keys() | (a.by_path.keys() & b.by_path.keys()) == a.by_path.keys()
    conflict = any(
        a.by_path[path] != b.by_path[path] for path in a.by_path.keys() & b.by_path.keys()
    )
    assert (attempt(lambda: a | b) is None) == conflict
    if not conflict:
        assert (a - b) | (a & b) == a
        assert (a | b).trainable_parameters == (
            a.trainable_parameters + b.trainable_parameters - (a & b).trainable_parameters
        )


@LAWS
@given(placements, placements)
def test_digests_are_equal_exactly_when_nothing_differs(a, b):
    assert (a.digest == b.digest) == (not a.diff(b)) == (a == b)
    assert Placement.from_json(a.to_json(), T5) == a if a.adapters else True


parts = st.lists(
    st.tuples(
        st.sampled_from(["attention.q", "attention.o", "cross_attention.v", "feed_forward"]),
        st.sampled_from(["", " @ encoder", " @ decoder @ last(1)", " @ layers(..50%)"]),
        st.none() | st.integers(1, 5),
    ),
    min_size=1,
    max_size=3,
)


@LAWS
@given(parts, st.sampled_from(["constant", "alpha/r", "rslora"]))
def test_text_yaml_placement_and_peft_configuration_say_the_same(chosen, scaling):
    """Text, YAML, placement, saved placement and configuration: one set of ranks and scales."""
    text = " + ".join(f"({word}{scope}){f':{r}' if r else ''}" for word, scope, r in chosen)
    placed = attempt(lambda: place(T5, text, rank=3, alpha=6, scaling=scaling))
    if placed is None:
        return
    again = place(T5, parse(text).to_yaml(), rank=3, alpha=6, scaling=scaling)
    saved = Placement.from_json(placed.to_json(), T5, scaling=scaling)
    read = read_peft(adapter_config(placed), T5)
    assert resolved(again) == resolved(saved) == resolved(read) == resolved(placed)
    assert again.digest == saved.digest == read.digest == placed.digest


def resolved(placement):
    return {a.site.path: (a.rank, placement.scale(a)) for a in placement.adapters}


def test_a_difference_of_scaling_alone_is_a_difference():
    one, two = (place(T5, "attention.q", rank=4, alpha=8, scaling=s) for s in ("rslora", "alpha/r"))
    assert len(one.diff(two).changed) == len(one.adapters)
    assert not one.diff(one)
