"""Does the picture of docs/perplexity.md come out of an audit, and say what is in it?"""

import importlib.util
import math
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "draw_audit.py"


@pytest.fixture(scope="module")
def tool():
    pytest.importorskip("matplotlib")
    spec = importlib.util.spec_from_file_location("draw_audit", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def variant(name, ratio, *, agrees=True, contradicts=False):
    losses = {"full": 3.0, "attention": 3.5}
    seeds = {place: {"0": ratio * math.exp(loss)} for place, loss in losses.items()}
    return {
        "name": name,
        "applies": ratio is not None,
        "ratio": dict.fromkeys(losses, ratio),
        "per_seed": seeds,
        "agrees": agrees,
        "contradicts": contradicts,
    }


def test_it_draws_every_definition_that_applies_and_the_published_figures(tool, tmp_path):
    audit = {
        "seeds": {"full": [0], "attention": [0]},
        "variants": [
            variant("corpus", 1.0),
            variant("labels_not_shifted", 200.0, agrees=False, contradicts=True),
            {"name": "bos_missing", "applies": False},
        ],
    }
    first, second = tmp_path / "first.svg", tmp_path / "second.svg"
    tool.draw(audit, first)
    tool.draw(audit, second)
    drawn = first.read_text()
    assert drawn == second.read_text()
    for text in ("corpus", "labels_not_shifted", "attention", "feed-forward", "4,000"):
        assert f">{text}<" in drawn
    assert "bos_missing" not in drawn
    assert tool.PUBLISHED["full"] == (3.089, 4283)
