"""No rule ends in a traceback: it selects sites of a model, or one message says why not."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import anatomies
from bad_input.fuzzing import FUZZED, WILD, works_or_says_why
from loratlas.placement.lints import lints
from loratlas.placement.peft_config import config_fields
from loratlas.placement.placement import place
from loratlas.placement.rules import parse

MODELS = [
    anatomies.gpt2(width=8, layers=3, vocabulary=16),
    anatomies.llama(layers=2),
    anatomies.t5(encoder=2, decoder=3),
]
WORDS = ["all", "attention", "attention.q", "all.v", "feed_forward.down", "cross_attention"]
WORDS += [
    "recurrent.x",
    "head",
    "embedding",
    "expert",
    "router",
    "attenton",
    "q_proj",
    "é",
    "all.x",
]
SIGNS = [
    "|",
    "-",
    "&",
    "+",
    ":",
    "@",
    "(",
    ")",
    ",",
    ".",
    "..",
    '"',
    "*",
    "[",
    "]",
    "%",
    "\x1b",
    "\n",
]
SCOPES = ["layers(", "first(", "last(", "every(", "encoder", "decoder", "names(", "file("]
NUMBERS = ["0", "1", "-1", "99", "50%", "..", "0.5", "101%", "9" * 99, "9" * 101, "-0", "007"]
NAMES = ["c_attn", "h.0.*", "*", "[!a]*", "[", "wte", "q", "good.json", "bad.json", "no.json", "."]
PIECES = st.sampled_from([*WORDS, *SIGNS, *SCOPES, *NUMBERS, *NAMES, " "])
SENTENCES = st.tuples(st.sampled_from(["", " "]), st.lists(PIECES, max_size=12)).map(
    lambda drawn: drawn[0].join(drawn[1])
)
NEARLY = [
    "all @ layers(0, 2..)",
    "attention:16 + feed_forward:4 @ last(1)",
    "(all - head) & names(c_attn, h.*.mlp.*)",
    'file("good.json") - attention',
    "all @ encoder @ every(2) | cross_attention.q",
]


@st.composite
def edited(draw):
    """A rule that can be read, with some letters replaced."""
    text = draw(st.sampled_from(NEARLY))
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 4)))
        text = text[:start] + draw(PIECES) + text[end:]
    return text


RULES = SENTENCES | edited() | st.text(max_size=20) | WILD


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    row = {"path": "transformer.h.0.attn.c_attn", "rank": 2, "alpha": 4}
    (folder / "good.json").write_text(json.dumps({"placement": [row]}))
    (folder / "bad.json").write_text("{")
    return folder


@FUZZED
@given(rule=RULES, model=st.sampled_from(MODELS), rank=st.sampled_from([1, 8, 65536]))
def test_fuzzed_rules(root, rule, model, rank):
    def resolve():
        parsed = parse(rule)
        assert parse(str(parsed)) == parsed
        placement = place(model, parsed, rank=rank, alpha=2 * rank, root=root)
        assert placement.adapters
        json.dumps(placement.to_json(), allow_nan=False)
        found = lints(parsed, placement, model, root=root)
        assert all(each.code and each.message for each in found)
        works_or_says_why(lambda: json.dumps(config_fields(placement), allow_nan=False))

    works_or_says_why(resolve)


@FUZZED
@given(saved=WILD, keys=st.fixed_dictionaries({}, optional=dict.fromkeys(["path", "rank"], WILD)))
def test_fuzzed_saved_placements(tmp_path_factory, saved, keys):
    row = {"path": "transformer.h.0.attn.c_attn", "rank": 2, "alpha": 4, **keys}
    root = tmp_path_factory.mktemp("saved", numbered=True)
    for content in (saved, {"placement": saved}, {"placement": [row]}):
        (root / "x.json").write_text(json.dumps(content))
        works_or_says_why(lambda: place(MODELS[0], "file(x.json)", root=root))
