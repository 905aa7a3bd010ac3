"""The language: what reads, what it is written back as, and the wording of every error."""

import time

import pytest

import anatomies
from loratlas.errors import RuleError
from loratlas.placement.expressions import Combined, File, Names, Rule, Scoped, Word
from loratlas.placement.lints import lints
from loratlas.placement.placement import place
from loratlas.placement.rules import parse

CANONICAL = [
    "all",
    "attention",
    "attention.q | attention.v",
    "attention:16 + feed_forward:4",
    "all @ layers(50%..)",
    "all @ layers(..12.5%, 50%..75%)",
    "all @ layers(0, 3, 8..11, -2, ..4, 20..)",
    "all @ first(3) @ encoder",
    "all - attention - head",
    "all - (attention - attention.q)",
    "feed_forward & names(c_proj, h.*.mlp.c_?roj)",
    "(feed_forward | attention) & names(c_proj)",
    "(feed_forward | attention) @ every(2)",
    "(feed_forward | attention):3 + head",
    'file("a folder/x (1).json"):2',
    "recurrent.in_proj | expert.gate_up | cross_attention.v | shared_expert.down",
]


@pytest.mark.parametrize("text", CANONICAL)
def test_canonical_text_reads_back_as_itself(text):
    rule = parse(text)
    assert str(rule) == text
    assert parse(str(rule)) == rule


@pytest.mark.parametrize("text", CANONICAL)
def test_yaml_form_reads_back_as_the_same_rule(text):
    rule = parse(text)
    assert parse(rule.to_yaml()) == rule
    assert parse({"parts": rule.to_yaml()}) == rule


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("all-head", "all - head"),
        ("  all\n  @first( 2 )", "all @ first(2)"),
        ("((attention))", "attention"),
        ("(all @ first(3)) @ last(2)", "all @ first(3) @ last(2)"),
        ("(attention & all) | head", "attention & all | head"),
        ("names(a,b.c)", "names(a, b.c)"),
        ("file(runs/a b.json)", 'file("runs/a b.json")'),
        ("all @ layers(3..3)", "all @ layers(3)"),
    ],
)
def test_other_ways_to_write_it(text, canonical):
    assert str(parse(text)) == canonical


def test_scopes_bind_tightest_then_and_then_or_and_minus_from_the_left():
    (part,) = parse("attention | feed_forward & all @ encoder - head").parts
    outer = part.expression
    assert isinstance(outer, Combined)
    assert (outer.operator, outer.right) == ("-", Word(word="head"))
    inner = outer.left
    assert isinstance(inner, Combined)
    assert (inner.operator, inner.left) == ("|", Word(word="attention"))
    both = inner.right
    assert isinstance(both, Combined)
    assert both.operator == "&"
    assert isinstance(both.right, Scoped)


def test_atoms_hold_what_was_written():
    assert parse("names(c_attn, attn.c_proj)").parts[0].expression == Names(
        entries=("c_attn", "attn.c_proj")
    )
    assert parse("file(x.json)").parts[0].expression == File(path="x.json")


def test_ranks_in_yaml_and_in_text_are_the_same_rule():
    yaml = [{"rule": "attention", "rank": 16}, {"rule": "feed_forward", "rank": 4}]
    assert parse(yaml) == parse("attention:16 + feed_forward:4")
    assert parse(yaml).to_yaml() == yaml
    assert parse([{"rule": "attention:16"}, {"rule": "head"}]) == parse("attention:16 + head")


def test_a_rule_is_returned_as_it_is():
    rule = parse("all")
    assert isinstance(rule, Rule)
    assert parse(rule) is rule


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("feed-forward", "unknown word feed-forward (did you mean feed_forward?)"),
        ("all | self-attention", "unknown word self-attention (did you mean self_attention?)"),
        ("atention", "unknown word atention (did you mean attention?)"),
        ("Attention", "unknown word Attention (did you mean attention?)"),
        ("all-atention", "unknown word atention (did you mean attention?)"),
        ("attention-q", "unknown word q (did you mean attention.q?)"),
        ("q_proj", "the name of a module is written names(...)"),
        ("zzz", "the words are all, attention, self_attention, cross_attention, feed_forward"),
        ("feed forward", "cannot read 'forward' here (did you mean feed_forward?)"),
        ("attention, head", "cannot read ',' here (join two with |, or with + when"),
        ("attention and head", "cannot read 'and' here (join two with |, or with + when"),
        ("name(c_attn)", "cannot read '(' here (did you mean names?)"),
        ("layers(50%..)", "layers(...) is a scope and stands behind @: all @ layers(...)"),
        ("encoder", "encoder is a scope and stands behind @: all @ encoder"),
        ("all @ layer(3)", "cannot read 'layer' here (did you mean layers?); allowed: layers("),
        ("all @ layers(3-7)", "cannot read '-' here (a range is written 3..7)"),
        ("attention.qq", "attention has no part qq (did you mean q?); its parts are q, k, v"),
        ("feed_forward.q", "feed_forward has no part q"),
        ("head.x", "head has no part x; it has no parts"),
        ("attention |", "the rule ends too early; allowed: a word such as attention"),
        ("(attention", "the rule ends too early; allowed: | -"),
        ("attention)", "cannot read ')' here"),
        ("attention:", "the rule ends too early; allowed: a number"),
        ("attention:0", "a rank is a positive integer, not 0"),
        ("attention:-4", "a rank is a positive integer, not -4"),
        ("attention:1.5", "cannot read '.' here"),
        ("names()", "cannot read ')' here; allowed: a module name"),
        ("names(a b)", "cannot read 'b' here; allowed: ,"),
        (r"names(.*\.q_proj)", "takes dotted suffixes (attn.c_proj) or globs (h.*.mlp.c_*), no"),
        ("names(^q$)", "no regular expressions"),
        ("names(a..b)", "a..b is no name"),
        ("file()", "cannot read ')' here; allowed: a file"),
        ('file("")', "file(...) needs the path of a saved placement"),
        ("all @ first(0)", "the number in first(...) is a positive integer, not 0"),
        ("all @ layers(3, 50%..)", "one list of layers holds indices or percentages, not both"),
        ("all @ layers(50%)", "a percentage needs a range, such as 50%.."),
        ("all @ layers(3..50%)", "both ends of a range are percentages or neither; not 3"),
        ("all @ layers(7..3)", "7..3 is empty; a range goes upwards"),
        ("all @ layers(-1..-3)", "-1..-3 is empty; a range goes upwards"),
        ("all @ layers(50%..50%)", "50%..50% is empty; a range goes upwards"),
        ("all @ layers(120%..)", "120% is no share of the layers; percentages go from 0% to 100%"),
        ("all @ layers(1.5)", "1.5 is no layer; layers are whole numbers"),
        ("all @ layers(..)", "cannot read ')' here"),
        ("attention ! head", "cannot read '!' here"),
        ("", "the rule is empty"),
        (" \n", "the rule is empty"),
    ],
)
def test_what_cannot_be_read_is_told(text, message):
    with pytest.raises(RuleError) as error:
        parse(text)
    assert message in str(error.value)


def test_a_caret_points_at_the_place():
    with pytest.raises(RuleError) as error:
        parse("attention | feed-forward")
    message, line, caret = str(error.value).split("\n")
    assert message.endswith("(column 13)")
    assert line == "  attention | feed-forward"
    assert caret.index("^") == line.index("feed-forward")


def test_a_caret_points_into_the_right_line():
    with pytest.raises(RuleError) as error:
        parse("attention\n  | hed")
    message, line, caret = str(error.value).split("\n")
    assert message.endswith("(line 2, column 5)")
    assert caret.index("^") == line.index("hed")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "a rule is text or a list of parts, not nothing"),
        (3, "a rule is text or a list of parts, not int: 3"),
        ([], "a list of parts needs at least one part"),
        ({}, "parts is a list of parts, not nothing"),
        ({"parts": "all"}, "parts is a list of parts, not str"),
        ({"names(c_attn": None, "c_proj)": None}, "quote this rule"),
        ({"part": []}, "unknown key part (did you mean parts?)"),
        (["all"], "part 1 is written {rule: attention, rank: 16}, not 'all'"),
        ([{"rule": "all"}, {"rank": 3}], "part 2 is written"),
        ([{"rule": "all", "ranks": 3}], "part 1: unknown key ranks (did you mean rank?)"),
        ([{"rule": "all", "rank": 0}], "part 1: a rank is a positive integer, not 0"),
        ([{"rule": "all", "rank": "8"}], "part 1: a rank is a positive integer, not '8'"),
        ([{"rule": "all", "rank": True}], "part 1: a rank is a positive integer, not True"),
        ([{"rule": "all:3", "rank": 2}], "part 1: its rank is given twice, :3 and rank"),
        ([{"rule": "all + head"}], "part 1: 'all + head' holds several parts"),
        ([{"rule": "atention"}], "did you mean attention?"),
    ],
)
def test_what_is_no_yaml_form_is_told(data, message):
    with pytest.raises(RuleError) as error:
        parse(data)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "text",
    ["|".join(["attention"] * 1000), "all" + " - head" * 151, "(" * 300 + "all" + "|head)" * 300],
)
def test_a_rule_too_deep_to_be_read_is_told(text):
    with pytest.raises(RuleError, match="more than 150 operators in a row"):
        parse(text)


def test_many_parts_brackets_and_a_long_chain_are_read():
    assert len(parse("+".join(["attention"] * 500)).parts) == 500
    assert parse("(" * 2000 + "all" + ")" * 2000) == parse("all")
    chain = parse(" | ".join(["attention"] * 140))
    assert parse(str(chain)) == chain


DEEPEST = {
    "a chain": " | ".join(["attention @ first(1)"] * 145),
    "taken away": "all" + " - attention.q" * 145,
    "to the right": "(".join(["all | "] * 145) + "all" + ")" * 144,
    "scopes of scopes": "(" * 72 + "all" + " | head) @ first(4)" * 72,
    "selects nothing": "all | " + " | ".join(["expert"] * 144),
}


def _below(frames, call):
    return call() if frames == 0 else _below(frames - 1, call)


@pytest.mark.parametrize("text", DEEPEST.values(), ids=DEEPEST)
def test_the_deepest_rule_works_for_a_caller_that_is_deep_itself(text):
    llama = anatomies.llama()

    def use():
        rule = parse(text)
        assert parse(str(rule)) == parse(rule.to_yaml()) == rule
        return len(lints(rule, place(llama, rule), llama))

    assert _below(300, use) == text.count("expert")


def test_ten_thousand_names_and_hundreds_of_parts_take_no_time():
    llama = anatomies.llama(layers=80)
    paths = [site.path for site in llama.sites if site.in_block]
    before = time.perf_counter()
    rule = parse(f"names({', '.join(paths * 18)})")
    placement = place(llama, rule)
    assert lints(rule, placement, llama) == []
    parts = place(llama, " + ".join(f"names({path}):2" for path in paths))
    assert len(placement.adapters) == len(parts.adapters) == len(paths) == 560
    # Under 1 s on a machine of its own; the bound leaves room for a busy one.
    assert time.perf_counter() - before < 10


@pytest.mark.parametrize(
    "text", ["all:{}", "all @ layers({})", "all @ first({})", "all @ layers(0.{}%..)"]
)
def test_a_number_too_long_to_be_read_is_told(text):
    with pytest.raises(RuleError, match=r"a number of \d+ digits; at most 100 are read"):
        parse(text.format("1" * 5000))
    with pytest.raises(RuleError, match="a rank has at most 100 digits"):
        parse([{"rule": "all", "rank": 10**5000}])
