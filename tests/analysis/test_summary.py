import json
import math

import numpy as np
import pytest

from loratlas.analysis.estimates import estimate
from loratlas.analysis.summary import results
from loratlas.measure.scores import SplitScore
from loratlas.study.records import PlacementRecord, TrialRecord
from loratlas.study.store import FILE_NAME, Store
from loratlas.train.outcome import Probe


def placement(name, count):
    return PlacementRecord(
        name=name,
        digest=f"digest of {name}",
        rule=name,
        trainable_parameters=count,
        matched_to=None,
        families={"attention": count},
        adapters=[{"path": "a", "rank": 2, "alpha": 4.0}, {"path": "b", "rank": 8, "alpha": 16.0}],
        warnings=[],
    )


def split(loss):
    """Two rows of 1 and 3 tokens whose corpus loss is `loss`, though the mean of rows is not."""
    return SplitScore(
        row=np.array([0, 1]),
        nll=np.array([loss + 0.3, 3 * loss - 0.3]),
        num_tokens=np.array([1, 3]),
        num_bytes=np.array([4, 8]),
        num_correct=np.array([0, 2]),
    )


NUM_TOKENS = split(0.0).num_tokens


def split_sums(losses):
    """Nats of each seed and row, shape (seeds, rows)."""
    return np.array([split(loss).nll for loss in losses])


def add(store, name, seed, loss, *, rate=1e-4, status="done"):
    record = TrialRecord(
        digest=f"{name}-{rate}-{seed}",
        placement_digest=f"digest of {name}",
        learning_rate=rate,
        seed=seed,
        status=status,
        engine="reference",
    )
    store.add_trial(record, {}, {} if status != "done" else {"test": split(loss)})


@pytest.fixture
def store(tmp_path):
    found = Store(tmp_path / FILE_NAME, writable=True)
    found.set_meta("name", "x")
    found.set_meta("study", {"baseline": "full"})
    found.set_meta("base_parameters", 1000)
    found.set_meta("steps_per_trial", 10)
    found.set_meta("chosen", {"full": 1e-4, "attention": 1e-4})
    found.set_placements([placement("full", 100), placement("attention", 60)])
    yield found
    found.close()


def test_the_figures_of_a_run(store):
    store.set_base_scores({"test": split(5.0)})
    probe = Probe(
        seconds_per_step=0.5, tokens_per_second=80.0, peak_memory_bytes=7, num_steps=6, engine="e"
    )
    store.set_probe("digest of full", probe)
    for seed, (full, attention) in enumerate([(2.0, 2.5), (2.2, 2.4), (2.1, 2.9)]):
        add(store, "full", seed, full)
        add(store, "attention", seed, attention)
        add(store, "full", seed, 9.0, rate=1e-2)
    found = results(store)
    assert found["base"]["loss"] == pytest.approx(5.0)
    assert found["base"]["perplexity"] == pytest.approx(math.exp(5.0))
    full, attention = found["placements"]["full"], found["placements"]["attention"]
    assert full["loss"] == pytest.approx(2.1)
    assert full["perplexity"] == pytest.approx(math.exp(2.1))
    scores = split_sums([2.0, 2.2, 2.1])
    expected = estimate(scores, NUM_TOKENS)
    assert full["loss_interval"] == pytest.approx(expected.interval)
    assert full["loss_interval_over"] == "new seeds and new examples"
    assert (full["num_trials"], full["num_failed"], full["ranks"]) == (3, 0, [2, 8])
    assert (full["seconds"], full["tokens_per_second"], full["peak_memory_bytes"]) == (5.0, 80.0, 7)
    assert attention["seconds"] is None
    assert attention["percent_of_base_and_adapters"] == pytest.approx(100 * 60 / 1060)
    assert attention["percent_saved_against_full_fine_tuning"] == pytest.approx(100 * 1000 / 1060)
    assert attention["percent_saved_against_baseline"] == pytest.approx(40.0)
    (contrast,) = found["contrasts"]
    assert (contrast["placement"], contrast["baseline"]) == ("attention", "full")
    assert contrast["difference"] == pytest.approx((0.5 + 0.2 + 0.8) / 3)
    sums = split_sums([2.5, 2.4, 2.9]) - scores
    expected = estimate(sums, NUM_TOKENS)
    assert contrast["interval"] == pytest.approx(expected.interval)
    assert contrast["p_adjusted"] == pytest.approx(expected.p_value)
    assert contrast["verdict"] == "cannot tell"
    assert (contrast["num_seeds"], contrast["num_examples"]) == (3, 2)
    assert contrast["sign_flip_p"] == 0.25


def test_differences_are_paired_over_the_seeds_that_both_have(store):
    for seed, loss in enumerate([2.0, 2.2, 2.4]):
        add(store, "full", seed, loss)
    add(store, "attention", 0, 2.1)
    add(store, "attention", 1, 0.0, status="diverged")
    add(store, "attention", 2, 2.7)
    found = results(store)
    (contrast,) = found["contrasts"]
    assert contrast["num_seeds"] == 2
    assert contrast["difference"] == pytest.approx((0.1 + 0.3) / 2)
    arm = found["placements"]["attention"]
    assert (arm["num_trials"], arm["num_failed"]) == (3, 1)
    assert arm["losses"] == {"0": pytest.approx(2.1), "2": pytest.approx(2.7)}


def test_nothing_known_is_none_and_never_nan(store):
    add(store, "attention", 0, 0.0, status="failed")
    found = results(store)
    json.dumps(found, allow_nan=False)
    assert found["base"]["loss"] is None
    full, attention = found["placements"].values()
    assert (full["loss"], full["loss_interval"], full["num_trials"]) == (None, None, 0)
    assert (attention["loss"], attention["perplexity"], attention["num_failed"]) == (None, None, 1)
    assert found["contrasts"][0]["difference"] is None


def test_a_perplexity_too_large_to_write_is_none(store):
    add(store, "full", 0, 800.0)
    found = results(store)["placements"]["full"]
    assert found["loss"] == pytest.approx(800.0)
    assert found["perplexity"] is None


def test_a_placement_without_a_rate_shows_no_loss(store):
    store.set_meta("chosen", {"full": None, "attention": 1e-4})
    add(store, "full", 0, 2.0)
    found = results(store)["placements"]["full"]
    assert (found["learning_rate"], found["loss"]) == (None, None)
