"""No LoRA configuration ends in a traceback: it is explained, or one message says why not."""

import contextlib
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bad_input.fuzzing import FUZZED, WILD
from loratlas.placement import patterns

NAMES = [
    "c_attn",
    "c_proj",
    "mlp.c_fc",
    "transformer.h.0.attn.c_attn",
    "h.1",
    "mlp",
    "lm_head",
    "x",
]
NAMES += ["wte", "", ".", "all-linear", "é"]
EXPRESSIONS = [
    ".*",
    "c_",
    "(",
    ")",
    "[",
    "]",
    "[[",
    "*",
    "+",
    "?",
    "{2}",
    "{99999999999}",
    "|",
    "\\",
]
EXPRESSIONS += ["(?P<idx>", "(?i)", "$", "^", "\\d", "attn", "h", r"\.", "(a*)*", "\\1"]
NAME = st.sampled_from(NAMES)
EXPRESSION = st.lists(st.sampled_from(EXPRESSIONS) | NAME, max_size=4).map("".join)
ENTRIES = st.lists(NAME | EXPRESSION, max_size=4)
LAYER = st.integers(-2, 4)
LIKELY = {
    "target_modules": ENTRIES | EXPRESSION,
    "target_parameters": ENTRIES,
    "exclude_modules": ENTRIES | EXPRESSION,
    "modules_to_save": ENTRIES,
    "layers_to_transform": LAYER | st.lists(LAYER, max_size=3),
    "layers_pattern": st.sampled_from(["h", "", "layers", "("]) | ENTRIES,
    "r": st.integers(-1, 9),
    "lora_alpha": st.integers(-1, 9) | st.floats(-9, 9),
    "rank_pattern": st.dictionaries(NAME | EXPRESSION, st.integers(-1, 9), max_size=3),
    "alpha_pattern": st.dictionaries(NAME | EXPRESSION, st.integers(-1, 9), max_size=3),
    "use_rslora": st.booleans(),
    "use_dora": st.booleans(),
    "lora_dropout": st.floats(-1, 2),
    "bias": st.sampled_from(["none", "all", "lora_only"]),
    "peft_type": st.sampled_from(["LORA", "LORA", "LORA", "ADALORA"]),
    "fan_in_fan_out": st.booleans(),
}


@st.composite
def configurations(draw):
    """The content of an adapter_config.json: some fields likely, one or none of any kind."""
    chosen = draw(st.lists(st.sampled_from(sorted(LIKELY)), max_size=6, unique=True))
    config = {"target_modules": ["c_attn"], **{key: draw(LIKELY[key]) for key in chosen}}
    if draw(st.booleans()):
        config[draw(st.sampled_from(sorted(LIKELY)))] = draw(WILD)
    return config


@pytest.fixture(scope="module", autouse=True)
def little_patience():
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(patterns, "TIME_LIMIT_SECONDS", 0.5)
        yield


@pytest.fixture(scope="module")
def explained(world, tmp_path_factory):
    """Asks about a configuration on the command line; returns whether it was explained."""
    file = tmp_path_factory.mktemp("adapter") / "adapter_config.json"

    def ask(content):
        file.write_text(content)
        return explains(str(world / "model"), str(file))

    return ask


def explains(model, file) -> bool:
    """Ask on the command line; it prints what is hit, or one message."""
    from loratlas.cli.main import main

    for options in ((), ("--json",)):
        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as end,
        ):
            main(["place", model, "--peft", file, *options])
        code = end.value.code or 0
        assert code in (0, 2)
        assert err.getvalue().count("loratlas: ") == (code == 2), err.getvalue()
        assert all(letter.isprintable() or letter == "\n" for letter in out.getvalue())
        assert all(letter.isprintable() or letter == "\n" for letter in err.getvalue())
        assert bool(out.getvalue()) == (code == 0)
        if options and code == 0:
            json.dumps(json.loads(out.getvalue()), allow_nan=False)
    return code == 0


@FUZZED
@given(config=configurations())
def test_fuzzed_adapters(explained, config):
    explained(json.dumps(config))


@FUZZED
@given(data=st.data())
def test_fuzzed_texts_of_adapters(explained, data):
    text = json.dumps({"r": 4, "target_modules": ["c_attn"], "rank_pattern": {"c_proj": 2}})
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 9)))
    pieces = st.sampled_from(["", "[", "{", '"', ",", "NaN", "1e999", "null", "\\ud800", "-", "[]"])
    explained(text[:start] + data.draw(pieces) + text[end:])


def test_what_is_fuzzed_can_be_explained(explained):
    assert explained(json.dumps({"r": 4, "target_modules": ["c_attn"]}))
    assert not explained("{}")
