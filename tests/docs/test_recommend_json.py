"""Are the keys of docs/reference/json.md those that a recommendation has, and no others?"""

import json
import re

import numpy as np

from loratlas.analysis.arms import Arms
from loratlas.analysis.budget import Budget, LossLimit
from loratlas.analysis.contrasts import Arm
from loratlas.analysis.costs import Cost
from loratlas.analysis.recommend import recommend
from loratlas.report.recommendations import recommendation

from .test_json import PAGE, keys


def _told():
    """Two placements, one of which is not yet shown to keep to a limit on the loss."""
    chance, tokens = np.random.default_rng(0), np.full(20, 4)
    arms = {
        name: Arm(
            name=name,
            seeds=(0, 1, 2),
            nll=tokens * (loss + chance.normal(0, 0.05, (3, 1)) + chance.normal(0, 0.05, 20)),
        )
        for name, loss in (("full", 2.0), ("half", 2.0))
    }
    run = Arms(scores={}, by_name=arms, baseline="full", base_nll=tokens * 3.0, num_tokens=tokens)
    costs = {
        "full": Cost(parameters=200, adapter_bytes=800),
        "half": Cost(parameters=100, adapter_bytes=400),
    }
    limit = LossLimit(amount=0.05, is_share=True)
    return recommendation(recommend(run, costs, budget=Budget(loss=limit)), "study")


def test_the_keys_are_those_of_the_page():
    section = PAGE.read_text().partition("\n## recommend\n")[2].partition("\n## ")[0]
    found = _told()
    assert found["contests"]
    documented = set(re.findall(r"^\| `([^`]+)` \|", section, flags=re.MULTILINE))
    example = json.loads(re.search(r"```json\n(.*?)```", section, flags=re.DOTALL)[1])
    assert keys(found) == documented == keys(example)
