import math

import numpy as np
import pytest
from arms import TOKENS, arm
from decisions import MIB, cost, losses, run, same_costs, simulated

from loratlas.analysis.budget import Budget, LossLimit
from loratlas.analysis.contrasts import Arm
from loratlas.analysis.costs import cheapest
from loratlas.analysis.recommend import PRESETS, recommend
from loratlas.report.recommendations import recommendation

SHARE = LossLimit(amount=0.1, is_share=True)


def _told(found):
    return recommendation(found, "study")["evidence"]


def test_cheaper_is_parameters_then_memory_then_seconds():
    costs = {
        "few": cost(1_000, memory=90, seconds=9),
        "as few": cost(1_040, memory=50, seconds=9),
        "quick": cost(1_040, memory=52, seconds=5),
        "small": cost(2_000, memory=10, seconds=1),
        "unknown": cost(1_000, memory=None, seconds=None),
    }
    assert cheapest(["few", "small"], costs) == ["few"]
    assert cheapest(["few", "as few"], costs) == ["as few"]
    assert cheapest(list(costs), costs) == ["quick"]
    assert cheapest(["unknown", "few"], costs) == ["few"]
    assert cheapest(["few", "few"], costs) == ["few", "few"]


def test_presets_part_ways_over_a_placement_that_cannot_be_told_from_the_best():
    """`cheap` is within the noise of `full`, half its size, and not shown to be near it."""
    arms = losses({"full": 2.0, "cheap": 2.04, "poor": 2.15, "bad": 2.6}, noise=0.03)
    costs = same_costs(arms, cheap=cost(500), poor=cost(250), bad=cost(100))
    found = {preset: recommend(arms, costs, preset=preset) for preset in PRESETS}
    taken = {preset: (each.placement, each.verdict) for preset, each in found.items()}
    assert taken == {
        "performance-critical": ("full", "lowest loss"),
        "balanced": ("cheap", "cheapest that will do"),
        "resource-constrained": ("poor", "cheapest that will do"),
    }
    assert found["balanced"].rivals.may_be_best == ("full", "cheap")
    assert found["balanced"].indistinguishable == ("full",)
    assert found["balanced"].acceptable == ("full", "cheap")
    assert found["balanced"].more_seeds == found["performance-critical"].more_seeds > 0
    assert found["resource-constrained"].contests == ()


def test_a_difference_that_does_not_matter_gives_way_unless_performance_is_critical():
    """Shown to be worse, and by less than the margin."""
    arms = losses({"full": 2.0, "cheap": 2.01}, noise=0.001)
    costs = same_costs(arms, cheap=cost(500))
    critical = recommend(arms, costs, preset="performance-critical")
    assert (critical.placement, critical.verdict) == ("full", "best")
    balanced = recommend(arms, costs)
    assert balanced.placement == "cheap"
    assert _told(balanced)[:2] == [
        "Take cheap: of the 2 placements that may have the lowest loss or are shown to lie within "
        "5% of the baseline's gain of it, it is the cheapest (full, cheap).",
        "cheap is not the best: its loss is 0.01 nats per token above that of full "
        "(p < 0.0001, corrected).",
    ]


def test_a_tie_goes_to_the_cheaper_even_where_performance_is_critical():
    arms = losses({"full": 2.0, "cheap": 2.0001}, noise=0.005)
    found = recommend(arms, same_costs(arms, cheap=cost(500)), preset="performance-critical")
    assert (found.placement, found.verdict) == ("cheap", "cheapest that will do")
    assert found.contests == ()


def test_the_best_in_words():
    arms = losses({"full": 2.0, "poor": 2.5})
    found = recommend(arms, same_costs(arms, poor=cost(10)))
    assert found.verdict == "best"
    assert _told(found) == [
        "Take full: its loss is shown to be the lowest of all that are allowed.",
        "poor is not the best: its loss is 0.5 nats per token above that of full "
        "(p < 0.0001, corrected).",
    ]


def test_an_open_comparison_in_words():
    arms = losses({"full": 2.0, "cheap": 2.04}, noise=0.03)
    found = recommend(arms, same_costs(arms, cheap=cost(500)))
    apart = found.rivals.estimates["full", "cheap"]
    needed = found.contests[0].needed
    assert _told(found) == [
        "Take cheap: of the 2 placements that may have the lowest loss, it is the cheapest "
        "(full, cheap).",
        f"Its loss cannot be told from that of full (-0.04, {apart.interval[0]:+.4g} to "
        f"{apart.interval[1]:+.4g}).",
        f"{needed.more} more seeds, {needed.in_all} in all, would tell whether full is better than "
        "cheap, should the truth be the 0.04 nats per token seen here (power 80%).",
    ]


def test_the_recommended_placement_is_among_the_best():
    """Two best of six and the others clearly worse: one of the two in 95% of studies."""
    chance = np.random.default_rng(8)
    truths = {"full": 2.0, "half": 2.0, "a": 2.25, "b": 2.3, "c": 2.25, "d": 2.4}
    costs = {name: cost(1_000 - 100 * place) for place, name in enumerate(truths)}
    right = dict.fromkeys(("balanced", "performance-critical"), 0)
    num_studies = 100
    for _ in range(num_studies):
        arms = simulated(chance, truths, num_examples=20)
        for preset in right:
            right[preset] += recommend(arms, costs, preset=preset).placement in ("full", "half")
    assert all(count / num_studies >= 0.95 for count in right.values()), right


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        (Budget(parameters=900), "It takes 1,000 parameters; allowed: 900 parameters."),
        (
            Budget(memory_bytes=63 * MIB),
            "It takes 64 MiB of memory; allowed: 63 MiB of memory.",
        ),
        (Budget(seconds=9.5), "It takes 10 seconds a trial; allowed: 9.5 seconds a trial."),
    ],
)
def test_each_limit(budget, reason):
    arms = losses({"full": 2.0, "cheap": 2.5})
    cheap = cost(900, memory=63, seconds=9.5)
    found = recommend(arms, same_costs(arms, cheap=cheap), budget=budget)
    assert (found.placement, found.verdict) == ("cheap", "only one allowed")
    assert found.standings["full"].reasons == (reason,)
    assert _told(found) == [
        "Take cheap: no other placement is within the budget and scored.",
        f"full: over the budget. {reason}",
    ]


def test_nothing_is_allowed():
    arms = losses({"full": 2.0, "cheap": 2.5})
    costs = same_costs(arms, cheap=cost(500, memory=None))
    found = recommend(arms, costs, budget=Budget(parameters=400))
    assert (found.placement, found.verdict, found.nearest) == (None, "none allowed", "cheap")
    assert _told(found)[0] == (
        "No placement can be recommended: none is within the budget and scored. "
        "The nearest is cheap."
    )
    found = recommend(arms, costs, budget=Budget(memory_bytes=1))
    assert found.nearest == "full"
    assert found.standings["cheap"].reasons[0].startswith("What it takes is not known; allowed")


def test_a_limit_on_the_loss_has_to_be_shown():
    arms = losses({"full": 2.0, "near": 2.01, "open": 2.08, "far": 2.3}, noise=0.04)
    costs = same_costs(arms, near=cost(500), open=cost(400), far=cost(300))
    found = recommend(arms, costs, budget=Budget(loss=SHARE))
    standings = {name: each.standing for name, each in found.standings.items()}
    assert standings == {
        "full": "allowed",
        "near": "allowed",
        "open": "loss not shown",
        "far": "loss not shown",
    }
    assert found.placement == "near"
    # Above the limit no number of seeds helps; below it they do.
    assert [contest.placement for contest in found.contests if contest.rival is None] == ["open"]
    nats = recommend(arms, costs, budget=Budget(loss=LossLimit(amount=0.5, is_share=False)))
    assert {each.standing for each in nats.standings.values()} == {"allowed"}
    least = recommend(
        arms,
        costs,
        budget=Budget(loss=LossLimit(amount=0.5, is_share=False)),
        preset="resource-constrained",
    )
    assert least.placement == "far"
    assert _told(least)[0].startswith(
        "Take far: of the 4 placements that are shown to keep to the limit on the loss"
    )


def test_a_limit_without_a_baseline_that_ended():
    table = losses({"a": 2.0, "b": 2.1}).by_name.values()
    none = Arm(name="full", seeds=(), nll=np.zeros((0, len(TOKENS))))
    arms = run(none, *table)
    found = recommend(arms, same_costs(arms), budget=Budget(loss=SHARE))
    assert found.verdict == "none allowed"
    assert found.standings["a"].reasons == (
        "Its increase of loss cannot be held against 10% of the baseline's gain.",
    )
    without = recommend(arms, same_costs(arms))
    assert without.placement == "a"
    assert "The baseline has no scores: there is no gain" in " ".join(_told(without))


def test_failed_trials_set_a_placement_aside():
    arms = losses({"full": 2.0, "lucky": 1.5}, noise=0.001)
    costs = same_costs(arms, lucky=cost(10, num_trials=6, num_failed=1))
    found = recommend(arms, costs)
    assert found.placement == "full"
    assert _told(found)[-1] == "lucky: set aside. 1 of 6 trials diverged or failed."


ONE_EXAMPLE = run(
    *(
        Arm(name=n, seeds=(0, 1), nll=np.array([[v], [v + 1]]))
        for n, v in (("full", 2.0), ("b", 9.0))
    ),
    base_nll=np.array([30.0]),
    num_tokens=np.array([4]),
)
CONSTANT = run(
    *(
        Arm(name=n, seeds=(0, 1), nll=np.ones((2, 1)) * TOKENS * v)
        for n, v in (("full", 2), ("b", 3))
    )
)


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        (losses({"full": 2.0, "b": 2.5}, seeds=(0,)), "full and b have 1 seeds in common"),
        (ONE_EXAMPLE, "One example has no spread"),
        (CONSTANT, "Every seed and example gives the same difference per token"),
    ],
)
@pytest.mark.parametrize("preset", PRESETS)
def test_cannot_tell(arms, said, preset):
    found = recommend(arms, same_costs(arms), preset=preset)
    assert (found.placement, found.verdict, found.more_seeds) == (None, "cannot tell", None)
    assert found.indistinguishable == found.acceptable == ()
    assert _told(found)[0].startswith(
        f"Cannot tell: no placement can be held against another. {said}"
    )


def test_what_a_run_may_lack():
    nothing = Arm(name="full", seeds=(), nll=np.zeros((0, len(TOKENS))))
    nan = Arm(name="nan", seeds=(0, 1), nll=np.full((2, len(TOKENS)), math.nan))
    arms = run(nothing, nan, baseline=None, base_nll=None)
    found = recommend(arms, same_costs(arms))
    assert (found.verdict, found.nearest) == ("none allowed", None)
    assert found.standings["full"].reasons == ("No trial at a chosen learning rate has ended.",)
    assert found.standings["nan"].reasons == ("120 of 120 scores are no numbers.",)
    single = recommend(losses({"full": 2.0}), {"full": cost(1)})
    assert (single.placement, single.verdict) == ("full", "only one allowed")
    one_of_many = run(arm("full", 2.0), arm("lone", 1.0, seeds=(0,)))
    aside = recommend(one_of_many, same_costs(one_of_many))
    assert aside.placement == "full"
    assert aside.standings["lone"].reasons[0].startswith("One seed, where others have more")


def test_the_same_placement_twice():
    one = arm("full", 2.0)
    arms = run(one, Arm(name="twin", seeds=one.seeds, nll=one.nll))
    found = recommend(arms, same_costs(arms))
    assert (found.placement, found.indistinguishable) == ("full", ("twin",))
