"""The founding study's own figures through its tables, and what an unfinished run gives."""

import json
import math

import pytest

from loratlas.analysis.founding import founding_tables

BASE = 354_823_168
ATTENTION, FEED_FORWARD = 2_359_296, 3_932_160
UP = 1_966_080  # c_fc alone: half of the feed-forward's


def arm(loss, count, seconds, families, *, perplexity=None, memory=1000, seed="42"):
    return {
        "loss": loss,
        "losses": {} if loss is None else {seed: loss},
        "perplexity": perplexity if perplexity or loss is None else math.exp(loss),
        "trainable_parameters": count,
        "families": families,
        "seconds": seconds,
        "peak_memory_bytes": memory,
        "percent_saved_against_full_fine_tuning": 100 * BASE / (BASE + count),
        "percent_saved_against_baseline": 100 * (1 - count / 6_291_456),
    }


@pytest.fixture
def published():
    """What the study measured, with digits that round to what it prints."""
    return {
        "baseline": arm(
            3.0888, 6_291_456, 90.4909, {"attention": ATTENTION, "feed_forward": FEED_FORWARD},
            perplexity=4283,
        ),
        "attention": arm(
            3.481, 4_325_376, 82.623, {"attention": ATTENTION, "feed_forward": UP},
            perplexity=2272, memory=900,
        ),
        "feed_forward": arm(
            4.2522, UP, 61.677, {"feed_forward": UP}, perplexity=3391, memory=750
        ),
    }  # fmt: skip


def tables(arms, baseline="baseline", base_parameters=BASE):
    found = founding_tables(
        {"placements": arms}, baseline=baseline, base_parameters=base_parameters
    )
    json.dumps(found, allow_nan=False)
    return found["tables"]


def column(table, name, digits):
    return [None if row[name] is None else round(row[name], digits) for row in table["rows"]]


def test_its_inputs_are_the_printed_ones(published):
    assert [round(found["loss"], 3) for found in published.values()] == [3.089, 3.481, 4.252]
    assert [round(found["seconds"], 1) for found in published.values()] == [90.5, 82.6, 61.7]


def test_its_table_1(published):
    table, *_ = tables(published)
    assert column(table, "loss above baseline", 1) == [0.0, 12.7, 37.7]
    assert column(table, "trainable parameters", 0) == [6_291_456, 4_325_376, 1_966_080]
    assert column(table, "fewer than full tuning", 2) == [98.26, 98.80, 99.45]
    # The study prints -8.7 and -31.9 from times with more digits than these.
    assert column(table, "less time than baseline", 1) == [0.0, 8.7, 31.8]


def test_its_table_2(published):
    _, table, *_ = tables(published)
    assert column(table, "trainable parameters per second", 0) == [69_526, 52_351, 31_877]
    assert column(table, "speed-up over baseline", 1) == [1.0, 1.1, 1.5]
    assert column(table, "fewer parameters than baseline", 1) == [0.0, 31.2, 68.8]
    assert column(table, "loss % per % saved", 2) == [None, 0.41, 0.55]
    assert column(table, "less memory than baseline", 1) == [0.0, 10.0, 25.0]


def test_its_table_3(published):
    *_, table, _ = tables(published)
    assert column(table, "expected perplexity", 1) == [22.0, 32.5, 70.3]
    # Its perplexities are of another definition, and this column shows it.
    assert column(table, "deviation (1 by construction)", 0) == [195, 70, 48]
    assert column(table, "loss above baseline, nats", 3) == [0.0, 0.392, 1.163]


def test_its_table_4_by_role(published):
    """The study has 100% attention in its second arm; c_proj is half feed-forward."""
    *_, table = tables(published)
    assert column(table, "attention share", 1) == [37.5, 54.5, 0.0]
    assert column(table, "feed-forward share", 1) == [62.5, 45.5, 100.0]
    assert column(table, "all adapters", 0) == [6_291_456, 4_325_376, 1_966_080]
    assert column(table, "base and adapters", 0) == [361_114_624, 359_148_544, 356_789_248]


def test_a_run_of_ours_deviates_by_nothing(published):
    ours = {
        name: {**found, "perplexity": math.exp(found["loss"])} for name, found in published.items()
    }
    assert column(tables(ours)[2], "deviation (1 by construction)", 12) == [1.0, 1.0, 1.0]


def test_every_column_says_what_it_is(published):
    for table in tables(published):
        names = [column["name"] for column in table["columns"]]
        assert all(list(row) == names for row in table["rows"])
        assert all(column["unit"] and column["meaning"] for column in table["columns"])


def test_other_sites_have_a_share_of_their_own(published):
    published["feed_forward"]["families"] = {
        "cross_attention": 10, "expert": 20, "shared_expert": 30, "router": 40,
    }  # fmt: skip
    published["feed_forward"]["trainable_parameters"] = 100
    row = tables(published)[3]["rows"][2]
    assert (row["attention"], row["feed-forward"], row["other share"]) == (10, 50, 40.0)


def test_differences_are_over_the_seeds_that_both_have(published):
    published["baseline"]["losses"] = {"0": 2.0, "1": 4.0}
    published["attention"]["losses"] = {"1": 5.0, "2": 1.0}
    table, _, losses, _ = tables(published)
    assert table["rows"][1]["loss above baseline"] == 25.0
    assert losses["rows"][1]["loss above baseline, nats"] == 1.0
    assert table["rows"][2]["loss above baseline"] is None


def test_no_saving_no_ratio(published):
    """More parameters than the baseline, or as many: nothing is saved that could be divided by."""
    for saved in (0.0, -3.0):
        published["attention"]["percent_saved_against_baseline"] = saved
        assert tables(published)[1]["rows"][1]["loss % per % saved"] is None


@pytest.mark.parametrize("baseline", ["baseline", "gone", None])
def test_what_is_missing_is_null(baseline):
    """Every trial failed, every probe failed, and the run has only begun."""
    nothing = arm(None, 4, None, {"attention": 4}, memory=None)
    nothing["percent_saved_against_baseline"] = None
    found = tables({"baseline": nothing, "attention": nothing}, baseline, None)
    known = {"placement", "trainable parameters", "fewer than full tuning", "attention",
             "attention share", "feed-forward", "feed-forward share", "all adapters"}  # fmt: skip
    for table in found:
        for row in table["rows"]:
            assert {name for name, value in row.items() if value is not None} <= known


def test_a_loss_of_zero_and_a_time_of_zero(published):
    published["baseline"].update(loss=0.0, losses={"42": 0.0}, seconds=0.0, peak_memory_bytes=0)
    table, times, *_ = tables(published)
    assert table["rows"][1]["loss above baseline"] is None
    assert table["rows"][1]["less time than baseline"] is None
    assert times["rows"][0]["trainable parameters per second"] is None
    assert times["rows"][1]["less memory than baseline"] is None
