"""What seeds can tell, held against enumeration, a simulation, and published figures."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from loratlas.analysis.power import (
    Pilot,
    pilot_of,
    power_of,
    power_of_paired_t,
    seeds_for_sign_flip,
    sentences,
    smallest_detectable,
    smallest_sign_flip_p,
    to_json,
)


@pytest.mark.parametrize("pairs", [1, 2, 5, 6])
def test_the_smallest_p_by_enumeration(pairs):
    differences = np.arange(1, pairs + 1)
    sums = [abs(np.dot(signs, differences)) for signs in product((-1, 1), repeat=pairs)]
    enumerated = np.mean([total >= differences.sum() for total in sums])
    assert smallest_sign_flip_p(pairs) == enumerated


def test_five_seeds_never_reach_five_percent():
    assert smallest_sign_flip_p(5) == 0.0625
    assert seeds_for_sign_flip(1) == 6
    assert seeds_for_sign_flip(2) == 7  # with 6, Holm makes 0.0625 of 0.03125
    said = sentences(power_of(5, 1))[0]
    assert said == (
        "5 seeds and 1 contrast: the exact sign-flip test cannot go below p = 0.0625, "
        "so by that test no result can reach 0.05; 6 seeds could."
    )
    assert "which is below 0.05" in sentences(power_of(6, 1))[0]


def test_correction_ends_at_one():
    assert smallest_sign_flip_p(1, 5) == 1


def test_power_of_t_against_a_published_figure():
    """Cohen's d_z = 0.5: 34 pairs are the first with 80%, as every power table has it."""
    assert power_of_paired_t(0.5, 34) == pytest.approx(0.8078, abs=1e-3)
    assert power_of_paired_t(0.5, 33) < 0.8


def test_power_of_no_effect_is_the_tests_size():
    assert power_of_paired_t(0.0, 6) == pytest.approx(0.05, abs=1e-9)


@pytest.mark.parametrize(("pairs", "contrasts"), [(4, 1), (6, 2)])
def test_the_smallest_effect_is_found_four_times_in_five(pairs, contrasts):
    effect = smallest_detectable(pairs, contrasts)
    draws = np.random.default_rng(0).normal(effect, 1, size=(20_000, pairs))
    p = stats.ttest_1samp(draws, 0, axis=1).pvalue
    # Standard error of a share of 0.8 in 20,000 draws: 0.0028.
    assert np.mean(p < 0.05 / contrasts) == pytest.approx(0.8, abs=0.01)


def test_more_seeds_see_more_and_more_contrasts_see_less():
    assert smallest_detectable(12) < smallest_detectable(6) < smallest_detectable(6, 3)
    assert smallest_detectable(1) is None


def test_one_seed_and_one_placement():
    assert sentences(power_of(1, 1))[1] == (
        "One seed has no spread: no difference can be told from chance."
    )
    alone = power_of(6, 0)
    assert (alone.smallest_p, alone.smallest_detectable) == (None, None)
    assert sentences(alone) == [
        "One placement: there is nothing to compare, so no test is planned."
    ]


def results(**losses):
    placements = {name: {"losses": each} for name, each in losses.items()}
    contrasts = [{"placement": name, "baseline": "full"} for name in losses if name != "full"]
    return {"placements": placements, "contrasts": contrasts}


def test_a_pilot_pools_the_spread_of_its_contrasts():
    found = pilot_of(
        results(
            full={"0": 1.0, "1": 1.0, "2": 1.0},
            low={"0": 1.1, "1": 1.3},
            high={"0": 1.0, "1": 1.2, "2": 1.1, "3": 9.0},
        ),
        "runs/first",
    )
    # Variances 0.02 with one degree of freedom, 0.01 with two.
    assert found.deviation == pytest.approx((0.04 / 3) ** 0.5)
    assert found.num_differences == 5
    power = power_of(6, 1, found)
    assert power.smallest_detectable_loss == pytest.approx(smallest_detectable(6) * found.deviation)
    assert "runs/first" in sentences(power)[2]


def test_a_run_without_two_seeds_is_no_pilot():
    assert pilot_of(results(full={"0": 1.0}, low={"0": 1.1}), "r") is None


def test_plain_data():
    found = to_json(power_of(6, 2, Pilot(source="r", deviation=0.01, num_differences=4)))
    assert found["smallest_p"] == 0.0625
    assert found["pilot"] == {"run": "r", "deviation": 0.01, "num_differences": 4}
    assert to_json(power_of(6, 2))["smallest_detectable_loss"] is None
