"""Are the keys of docs/reference/json.md those that the audit prints, and no others?"""

import json
import re

import numpy as np
import pytest

from loratlas.analysis.audit import audit, explanation
from loratlas.measure.audit.explain import Figure, Given, explain
from loratlas.measure.audit.seen import Seen, Setting
from loratlas.measure.audit.tallies import Tally
from loratlas.measure.audit.variants import Reading, Variant
from loratlas.study.audit_run import LeftOut, RunReadings

from .test_json import FREE, PAGE, keys

AUDIT_FREE = {
    "loss": "NAME",
    "seeds": "NAME",
    "per_placement": "NAME",
    "per_seed": "NAME",
    "NAME": "SEED",
    "ratio": "NAME",
    "trainer_losses": "NAME",
}


@pytest.fixture(autouse=True)
def free_keys(monkeypatch):
    for key, word in AUDIT_FREE.items():
        monkeypatch.setitem(FREE, key, word)


def section(title: str) -> tuple[set[str], dict]:
    """Return the documented keys of a section, and its example."""
    text = PAGE.read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]
    example = json.loads(re.search(r"```json\n(.*?)```", text, flags=re.DOTALL)[1])
    return set(re.findall(r"^\| `([^`]+)` \|", text, flags=re.MULTILINE)), example


def variant(name: str) -> Variant:
    return Variant(name=name, what="It does.", tally=Seen.tally)


def readings(corpus: float, wrong: float) -> dict[str, Reading]:
    """Three definitions over two rows of four tokens, and one that does not apply."""
    means = {"corpus": corpus, "eos_masked": corpus, "first_label_counted": wrong}
    found = {
        name: Reading(
            variant=variant(name),
            tally=Tally(nll=np.array([4 * mean, 4 * mean]), count=np.array([4, 4])),
        )
        for name, mean in means.items()
    }
    return {**found, "bos_missing": Reading(variant=variant("bos_missing"), reason="none there")}


def test_audit():
    run = RunReadings(
        split="test",
        setting=Setting(window=64),
        num_rows=2,
        num_tokens=8,
        base=readings(5.0, 9.0),
        placements={
            "full": {0: readings(3.0, 8.0), 1: readings(3.1, 8.1)},
            "attention": {0: readings(3.5, 7.0), 1: readings(3.6, 7.1)},
        },
        left_out=[LeftOut(placement="full", learning_rate=0.1, seed=2, reason="diverged")],
        complete=True,
    )
    found = audit(run, "tiny")
    json.dumps(found, allow_nan=False)
    corpus, same, other, missing = found["variants"]
    assert (corpus["agrees"], same["agrees"], other["agrees"]) == (True, True, False)
    assert (other["ranking"], other["contradicts"]) == (["attention", "full"], True)
    assert missing["per_placement"] == {"full": None, "attention": None}
    assert missing["ranking"] is missing["agrees"] is None
    documented, example = section("audit")
    assert keys(found) == documented == keys(example)


def test_explain():
    of_model = readings(3.0, 8.0)
    pair = Given(loss=Figure.parse("3.0", "LOSS"), perplexity=Figure.parse("2981", "PERPLEXITY"))
    found = explanation(explain(pair, of_model, batch=8), of_model)
    json.dumps(found, allow_nan=False)
    assert found["reproduces"] == ["first_label_counted"]
    documented, example = section("audit --explain")
    about = {"model", "data", "num_rows", "num_tokens", "batch"}
    assert keys(found) | about == documented == keys(example)
