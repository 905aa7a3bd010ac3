import math

import pytest
import torch

from loratlas.errors import RequestError
from loratlas.measure.audit.explain import Figure, Given, explain
from loratlas.measure.audit.rows import audit_rows
from loratlas.measure.audit.seen import Seen, Setting
from loratlas.measure.audit.tallies import batch_means
from loratlas.measure.audit.variants import read


@pytest.fixture
def readings(base, prepared):
    rows = prepared.test.rows
    audited = audit_rows(rows, base.tokenizer, pad_id=base.pad_id, answers=None)
    return read(Seen(base.model, audited, Setting(batch=4), device=torch.device("cpu")))


def given(loss, perplexity):
    return Given(loss=Figure.parse(str(loss), "L"), perplexity=Figure.parse(str(perplexity), "P"))


def trainer_loss(readings):
    return batch_means(readings["corpus"].tally, 4)


@pytest.mark.parametrize(
    "planted", ["labels_not_shifted", "mean_of_perplexities", "per_word", "base_2_power"]
)
def test_it_recovers_a_definition_that_was_planted(readings, planted):
    perplexity = math.exp(readings[planted].log_perplexity)
    found = explain(given(f"{trainer_loss(readings):.4f}", f"{perplexity:.2f}"), readings, batch=4)
    assert found.same_loss
    assert found.tells
    assert planted in found.named("reproduces")
    assert "corpus" not in found.named("reproduces") or planted == "mean_of_perplexities"
    assert found.accounts[planted].distance < 1e-3


def test_exp_of_the_loss_is_the_corpus_loss(readings):
    loss = trainer_loss(readings)
    found = explain(given(f"{loss:.4f}", f"{math.exp(loss):.2f}"), readings, batch=4)
    assert "batch_means_4" in found.named("reproduces")
    assert "labels_not_shifted" not in found.named("reproduces")


def test_no_definition_gives_an_impossible_pair(readings):
    found = explain(given(f"{trainer_loss(readings):.4f}", "1e12"), readings, batch=4)
    assert found.same_loss
    assert found.tells
    assert found.named("reproduces") == found.named("near") == []
    assert set(found.named("far")) == {n for n, a in found.accounts.items() if a is not None}


def test_another_models_loss_leaves_only_the_distance_to_compare(readings):
    """The pair of a model half a nat better, off from exp(loss) as unshifted labels are."""
    account = explain(given("6", "400"), readings, batch=4).accounts["per_byte"]
    loss = trainer_loss(readings) - 0.5
    perplexity = math.exp(loss + account.excess)
    found = explain(given(f"{loss:.4f}", f"{perplexity:.5f}"), readings, batch=4)
    assert not found.same_loss
    assert found.loss_gap == pytest.approx(0.5, abs=0.1)
    assert found.named("reproduces") == []
    assert found.named("near")[0] == "per_byte"
    assert "corpus" not in found.named("near")


def test_a_loss_further_off_than_the_excess_tells_nothing(readings):
    loss = trainer_loss(readings) - 2
    found = explain(given(f"{loss:.4f}", f"{math.exp(loss + 0.5):.4f}"), readings, batch=4)
    assert "corpus" in found.named("near")
    assert not found.tells


def test_what_does_not_apply_has_no_account(readings):
    found = explain(given("3", "20"), readings, batch=4)
    assert found.accounts["bos_missing"] is None
    assert "bos_missing" not in [*found.named("near"), *found.named("far")]


@pytest.mark.parametrize(
    ("text", "value", "half_unit"),
    [("3.089", 3.089, 0.0005), ("4,283", 4283, 0.5), ("1e3", 1000, 500), ("22.0", 22, 0.05)],
)
def test_a_figure_is_as_exact_as_it_was_printed(text, value, half_unit):
    figure = Figure.parse(text, "LOSS")
    assert figure.value == value
    assert figure.half_unit == pytest.approx(half_unit)


@pytest.mark.parametrize(
    ("loss", "perplexity", "message"),
    [
        ("three", "22", "LOSS: a number such as 3.089, not 'three'"),
        ("nan", "22", "LOSS: a finite number such as 3.089, not 'nan'"),
        ("3", "inf", "PERPLEXITY: a finite number such as 3.089, not 'inf'"),
        ("3", "1e999", "PERPLEXITY: a finite number such as 3.089, not '1e999'"),
        ("-1", "22", "LOSS: at least 0, not -1"),
        ("3", "0.5", "PERPLEXITY: at least 1, which a perfect model has, not 0.5"),
    ],
)
def test_figures_that_cannot_be(loss, perplexity, message):
    with pytest.raises(RequestError) as said:
        Given(loss=Figure.parse(loss, "LOSS"), perplexity=Figure.parse(perplexity, "PERPLEXITY"))
    assert str(said.value) == message
