"""No study file ends in a traceback: it is a study, or messages name its file and lines."""

import copy
import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

import anatomies
from bad_input.fuzzing import FUZZED, WILD, works_or_says_why
from loratlas.study.resolve import resolve_study
from loratlas.study.spec import parse_study

MODEL = anatomies.gpt2(width=8, layers=3, vocabulary=16)
MINIMAL = """\
name: small
model: demo:gpt2
data: {source: "demo:facts", format: prompt_completion}
placements: {attention: attention, full: all}
lora: {rank: 4}
seeds: 2
training:
  learning_rate: [1e-4]
  batch: 4
"""
WHOLE = {
    "version": 1,
    "name": "small",
    "model": {"name": "demo:gpt2", "trust_remote_code": False},
    "device": "cpu",
    "engine": "auto",
    "data": {
        "source": {"train": "a.jsonl", "test": "b.jsonl"},
        "format": "alpaca",
        "train": 8,
        "validation": 4,
        "test": 4,
        "loss_on": "response",
        "max_length": 16,
    },
    "placements": {
        "full": "all",
        "ranked": {"rule": "attention", "rank": 2, "match": "none"},
        "parts": {"parts": [{"rule": "attention", "rank": 2}, {"rule": "feed_forward"}]},
        "scored": {"scorer": "gradient", "sites": "all", "max_rank": 8, "options": {}},
        "moving": {"policy": "saliency", "initial": 1.5, "warmup": 0.1},
    },
    "baseline": "full",
    "lora": {"rank": 4, "alpha": 8, "scaling": "constant", "dropout": 0.0},
    "match": "parameters",
    "training": {"steps": 3, "batch": 4, "learning_rate": [1e-4, 1e-3], "warmup": 0.1},
    "seeds": [0, 1],
    "sweep_seeds": 1,
    "measures": ["loss", {"task": "forgetting", "source": "x.jsonl"}],
    "margin": 0.05,
    "hypothesis": {"ranked": "at least 95% of full"},
    "track": ["tensorboard"],
}
SIGNS = ["", " ", "\n", "\t", ":", ": ", "- ", "[", "]", "{", "}", ",", '"', "'", "#", "&a", "*a"]
SIGNS += ["!", "%", "~", "|", "@", "(", ")", "<<", "\x00", "\ufeff", "\ud800", "é", "\r"]
WORDS = ["null", "true", "-1", ".nan", "1e999", "9" * 5000, "{a: 1}", "[1]", "full", "name:"]
WORDS += ["rule", "parts", "scorer", "policy", "<one>", "<keys>"]
PIECES = st.sampled_from([*SIGNS, *WORDS])


def judge(text: str) -> None:
    """Read a study and put it on a model: it succeeds, or says what is wrong, and on which line."""

    def read() -> None:
        study = parse_study(text, Path("study.yaml"))
        assert len(study.digest) == 64
        assert resolve_study(study, MODEL)

    message = works_or_says_why(read)
    if message is not None:
        assert message.startswith("study.yaml:")
        assert all(letter.isprintable() or letter == "\n" for letter in message)


@FUZZED
@given(data=st.data())
def test_fuzzed_texts_of_studies(data):
    text = data.draw(st.sampled_from([MINIMAL, json.dumps(WHOLE, indent=1)]))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 12)))
        text = text[:start] + data.draw(PIECES) + text[end:]
    judge(text)


def test_the_study_that_is_fuzzed_is_one():
    judge(MINIMAL)
    assert parse_study(json.dumps(WHOLE), Path("study.yaml")).name == "small"


def holders(data):
    """Yield every mapping and list of plain data."""
    if isinstance(data, dict | list):
        yield data
        for inner in data.values() if isinstance(data, dict) else data:
            yield from holders(inner)


@FUZZED
@given(data=st.data())
def test_fuzzed_values_of_studies(data):
    study = copy.deepcopy(WHOLE)
    for _ in range(data.draw(st.integers(1, 3))):
        holder = data.draw(st.sampled_from([each for each in holders(study) if each]))
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        key = data.draw(st.sampled_from(keys))
        match data.draw(st.sampled_from(["set", "set", "set", "drop", "add"])):
            case "set":
                holder[key] = data.draw(WILD)
            case "drop":
                del holder[key]
            case "add" if isinstance(holder, dict):
                holder[data.draw(st.text(max_size=6))] = data.draw(WILD)
    judge(json.dumps(study))
