"""The founding study's two files, resolved on a GPT-2 of DialoGPT-medium's shape."""

import json
from pathlib import Path

import pytest
from transformers import GPT2Config

from loratlas.anatomy.read import read
from loratlas.placement.placement import place
from loratlas.study.planning import plan_study
from loratlas.study.resolve import resolve_study
from loratlas.study.spec import load_study

STUDIES = Path(__file__).parents[2] / "studies"


@pytest.fixture(scope="module")
def medium(tmp_path_factory):
    """Width 1024, 24 layers, a vocabulary of 50,257: the published model without its weights."""
    file = tmp_path_factory.mktemp("medium") / "config.json"
    config = GPT2Config(n_embd=1024, n_layer=24, n_head=16, architectures=["GPT2LMHeadModel"])
    file.write_text(json.dumps(config.to_dict()))
    return read(str(file))


def plan(name, medium):
    study = load_study(STUDIES / name)
    return study, plan_study(study, medium, resolve_study(study, medium))


def test_the_published_arms(medium):
    study, found = plan("dialogpt-alpaca.yaml", medium)
    assert study.model.name == "microsoft/DialoGPT-medium"
    assert found["base_parameters"] == 354_823_168
    arms = found["placements"]
    counts = {name: arm["trainable_parameters"] for name, arm in arms.items()}
    assert counts == {
        "baseline": 6_291_456,
        "attention_only": 4_325_376,
        "feed_forward_only": 1_966_080,
    }
    baseline, attention = arms["baseline"], arms["attention_only"]
    assert round(baseline["percent_of_base_and_adapters"], 2) == 1.74
    assert round(baseline["percent_saved_against_full_fine_tuning"], 2) == 98.26
    assert round(attention["percent_saved_against_baseline"], 2) == 31.25
    assert found["num_trials"] == 3


def test_the_published_attention_arm_holds_feed_forward_adapters(medium):
    _, found = plan("dialogpt-alpaca.yaml", medium)
    arms = found["placements"]
    assert arms["attention_only"]["families"] == {
        "attention": 2_359_296,
        "feed_forward": 1_966_080,
    }
    codes = {name: [w["code"] for w in arm["warnings"]] for name, arm in arms.items()}
    assert "ambiguous-name" in codes["attention_only"]
    assert codes["feed_forward_only"] == []


def test_the_corrected_arms_are_equal_in_parameters(medium):
    study, found = plan("dialogpt-alpaca-corrected.yaml", medium)
    arms = found["placements"]
    assert {name: arm["ranks"] for name, arm in arms.items()} == {
        "full": [15],
        "attention": [40],
        "feed_forward": [24],
    }
    assert {arm["trainable_parameters"] for arm in arms.values()} == {5_898_240}
    assert {arm["difference_to_match"] for arm in arms.values()} == {None, 0}
    assert arms["attention"]["families"] == {"attention": 5_898_240}
    assert arms["feed_forward"]["families"] == {"feed_forward": 5_898_240}
    assert all(arm["warnings"] == [] for arm in arms.values())
    # Three rates on two seeds, then four seeds at the chosen one, for three placements.
    assert found["num_trials"] == 3 * (3 * 2 + 4)
    assert study.seeds == (0, 1, 2, 3, 4, 5)


@pytest.mark.parametrize(
    ("rule", "count"),
    [
        ("all", 6_291_456),
        ("names(c_attn, c_proj)", 4_325_376),
        ("names(c_fc)", 1_966_080),
        ("attention", 2_359_296),
        ("feed_forward", 3_932_160),
    ],
)
def test_counts_at_rank_16(medium, rule, count):
    assert place(medium, rule, rank=16, alpha=32).trainable_parameters == count


def test_every_shipped_study_can_be_read():
    files = sorted(STUDIES.glob("*.yaml"))
    assert len(files) >= 3
    for file in files:
        assert load_study(file).placements
