"""Does the account of a study's cost hold what it says?"""

import json
from dataclasses import replace

import pytest

AXES = {"trials": (1, 2), "blocks": (2, 12)}


@pytest.fixture(scope="module")
def cost(benchmarks):
    return benchmarks.cost_of_a_study


@pytest.mark.slow
def test_runs_end_to_end(cost, tiny, in_process, tmp_path, capsys):
    file = tmp_path / "found.json"
    work = tiny(cost.WORK, seeds=1)
    cost.main(["--json", str(file), "--threads", "1"], work, AXES)
    lines = capsys.readouterr().out.splitlines()
    # One study a second here: two trials together take half of what they take one by one.
    assert lines[-1] == "ratio 2.00 (2.00 to 2.00 over 1 pairs)"
    found = json.loads(file.read_text())
    points = {(point["axis"], point["value"]): point for point in found["points"]}
    assert points.keys() == {(axis, value) for axis, values in AXES.items() for value in values}
    # All blocks with one seed is one study, which runs once.
    assert in_process.count("loratlas plan") == 3
    assert points["trials", 2]["flops"] == 2 * points["trials", 1]["flops"]
    assert points["blocks", 2]["flops"] < points["blocks", 12]["flops"]
    share = points["trials", 1]["flops"] / points["trials", 1]["loratlas"]["training_seconds"]
    assert points["trials", 1]["share"] == pytest.approx(share / found["peak_flops"])


def test_operations_are_those_of_rows_without_padding(
    benchmarks, cost, tiny, materials_of, in_process, tmp_path
):
    """The closed form for GPT-2 with every site of every block adapted, row by row."""
    work = tiny(cost.WORK, seeds=2)
    materials = materials_of(work)
    width, layers, words = (work.shape[key] for key in ("n_embd", "n_layer", "vocab_size"))
    block, adapted = 12 * width**2, layers * work.rank * width * (1 + 3 + 1 + 1 + 1 + 4 + 4 + 1)
    # What the lowest block's adapters do not pass on: attention's first map, and its input.
    lowest = block - 3 * width**2
    by_hand = 0
    for line in materials.rows["train"].read_text().splitlines():
        row = json.loads(line)
        tokens = len((row["prompt"] + row["completion"]).split()) + 1
        forward = 2 * tokens * (layers * block + words * width) + 4 * layers * tokens**2 * width
        backward = 2 * tokens * (words * width + (layers - 1) * block + lowest)
        backward += 8 * layers * tokens**2 * width
        adapters = 6 * tokens * adapted - 2 * tokens * work.rank * width
        by_hand += forward + backward + adapters
    assert cost.planned_flops(work, materials, tmp_path) == pytest.approx(2 * by_hand)


def test_one_thing_is_varied_at_a_time(cost):
    work = cost.WORK
    assert cost.varied(work, "trials", 8) == replace(work, seeds=8)
    assert cost.varied(work, "tokens", 64) == replace(work, max_length=64)
    assert cost.varied(work, "rank", 4) == replace(work, rank=4, alpha=8)
    assert cost.same_study(cost.varied(work, "blocks", 24), work)
    assert not cost.same_study(cost.varied(work, "blocks", 12), work)


@pytest.mark.parametrize("size", ["WORK", "QUICK_WORK"])
def test_axes_meet_in_one_study(cost, size):
    """Each axis holds the study that the others keep, so that their tables can be joined."""
    work = getattr(cost, size)
    axes = cost.AXES if size == "WORK" else cost.QUICK_AXES
    for axis, values in axes.items():
        assert any(cost.same_study(cost.varied(work, axis, value), work) for value in values)
    assert max(axes["blocks"]) == work.shape["n_layer"]


def test_the_peak_of_products_is_no_less_than_what_is_reached(benchmarks):
    """A product of 512 x 512 on one core: between a tenth and a thousand GFLOP/s."""
    peak = benchmarks.machine.peak_flops("cpu", "fp32", threads=1, size=512, repeats=3)
    assert 1e8 < peak < 1e12
