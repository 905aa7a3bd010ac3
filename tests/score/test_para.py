"""Spectra of adapters that were trained at a high rank: by each engine, held against ΔW itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scored_subjects import TRAINING, subject_of

import families
from loratlas.anatomy.read import read
from loratlas.data.batches import prepare
from loratlas.data.spec import DataSpec
from loratlas.errors import RequestError, TrialError
from loratlas.placement.placement import LoraSpec
from loratlas.score import para as para_module
from loratlas.score.para import Para, rows_read, train_alike
from loratlas.score.run import score
from loratlas.train.adapters import new_adapters
from loratlas.train.base import load_base
from loratlas.train.packed.windows import windows
from loratlas.train.reference import fit, num_steps
from loratlas.train.trial import ModelRef, TrainingSpec


@pytest.fixture
def subject(base, anatomy, prepared):
    return subject_of(base, anatomy, prepared.train.rows[:16])


@pytest.fixture
def by_reference(monkeypatch):
    """Let the packed engine refuse every base."""
    monkeypatch.setattr(para_module, "open_base", lambda *_: "not today")


def test_the_curve_is_that_of_what_peft_and_trainer_train(subject):
    """An authority: a person's own training at rank 4, and torch's SVD of ΔW."""
    found = Para().measure(subject)
    placement = para_module.alike(subject, 4)
    with new_adapters(subject.base, placement, seed=0, dropout=0.0) as model:
        fit(subject.base, model, subject.rows, TRAINING, learning_rate=1e-2, seed=0)
        deltas = {
            name.removeprefix("base_model.model."): layer.get_delta_weight("default").detach()
            for name, layer in model.named_modules()
            if "default" in getattr(layer, "r", {})
        }
    for site, value, curve in zip(subject.sites, found.values, found.curves, strict=True):
        squares = torch.linalg.svdvals(deltas[site.path].double())[:4].square().numpy()
        # The engines take sums in different orders, in fp32.
        assert curve == pytest.approx(squares, rel=2e-3, abs=1e-9)
        assert value == pytest.approx(float(deltas[site.path].square().sum()), rel=2e-3)


def test_the_engines_agree(subject, monkeypatch):
    packed = Para().measure(subject)
    monkeypatch.setattr(para_module, "open_base", lambda *_: "not today")
    alone = Para().measure(subject)
    assert packed.values == pytest.approx(alone.values, rel=2e-3)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("engine", ["packed", "reference"])
def test_the_base_comes_back_as_it_was(subject, engine, training, request):
    if engine == "reference":
        request.getfixturevalue("by_reference")
    model = subject.base.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train(training)
    try:
        first = Para().measure(subject)
        after = model.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in after)
        assert {module.training for module in model.modules()} == {training}
        assert not any(parameter.requires_grad for parameter in model.parameters())
        assert np.array_equal(first.values, Para().measure(subject).values)
    finally:
        model.eval()


def test_scores_and_cost(subject):
    table = score(Para(), subject)
    assert table.agreement is None
    assert table.notes == (
        "trained at rank 4 with rate 0.01",
        "halves of the rows were not trained on: the agreement is not known",
    )
    # 3 steps of 4 rows.
    assert (table.cost.num_forwards, table.cost.num_backwards) == (12, 12)
    for each in table.scores:
        assert len(each.curve) == 4
        assert list(each.curve) == sorted(each.curve, reverse=True)
        assert sum(each.curve) == pytest.approx(each.value)


def test_halves_are_trained_on_when_they_are_asked_for(subject):
    subject = replace(subject, rows=subject.rows[:15])
    found = Para(halves=True).measure(subject)
    # 3 steps of 4 rows each; the second half has 7 rows, so that its second step has 3.
    assert found.num_forwards == 12 + 12 + 11
    # Of an odd number of rows the first half has one more, as for every method.
    for half, rows in zip(found.halves, (subject.rows[:8], subject.rows[8:]), strict=True):
        alone = Para().measure(replace(subject, rows=rows))
        assert half == pytest.approx(alone.values, rel=1e-6)
    assert score(Para(halves=True), subject).agreement > 0


def test_rank_and_rate_are_options(subject):
    table = score(Para(rank=6, learning_rate=3e-2), subject)
    assert table.notes[0] == "trained at rank 6 with rate 0.03"
    # No curve is longer than what is asked for; the value is that of all ranks.
    assert len(table.scores[0].curve) == 4
    assert sum(table.scores[0].curve) < table.scores[0].value


def test_no_site_gets_more_rank_than_it_can_have(subject):
    wide = subject_of(
        subject.base, subject.anatomy, subject.rows, max_rank=50, lora=LoraSpec(rank=2, alpha=4)
    )
    trained = train_alike(wide, rank=50, learning_rate=1e-3)
    assert {factors.a.shape[1] for factors in trained.values()} == {32}
    # The scale stays that of the study.
    assert {factors.scale for factors in trained.values()} == {2}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rank": 0}, "para: rank 0: it is at least 1"),
        ({"learning_rate": 0.0}, "para: learning_rate 0.0: it is above 0"),
    ],
)
def test_wrong_options(options, said):
    with pytest.raises(RequestError) as caught:
        Para(**options)
    assert str(caught.value) == said


@pytest.mark.parametrize("engine", ["packed", "reference"])
def test_a_training_that_diverges(subject, engine, request):
    if engine == "reference":
        request.getfixturevalue("by_reference")
    wild = Para(learning_rate=1e30)
    with pytest.raises(TrialError, match="diverged"):
        wild.measure(subject)
    assert not any(parameter.requires_grad for parameter in subject.base.model.parameters())


def test_experts_are_trained_by_the_reference_engine(tmp_path):
    families.write("mixtral", tmp_path)
    (tmp_path / "rows.jsonl").write_text(families.prompt_rows(30))
    base = load_base(
        ModelRef(name=str(tmp_path)), dtype="fp32", base_dropout=0.0, device=torch.device("cpu")
    )
    data = DataSpec(
        source="rows.jsonl",
        format="prompt_completion",
        train=8,
        validation=4,
        test=4,
        max_length=48,
    )
    rows = prepare(data, base.tokenizer, root=tmp_path).train.rows
    anatomy = read(str(tmp_path))
    training = TrainingSpec(steps=2, batch=4, learning_rate=(1e-2,))
    subject = subject_of(
        base, anatomy, rows, rule="feed_forward @ first(1)", training=training, max_rank=2
    )
    found = Para().measure(subject)
    placement = para_module.alike(subject, 2)
    with new_adapters(base, placement, seed=0, dropout=0.0) as model:
        fit(base, model, rows, training, learning_rate=1e-2, seed=0)
        norms = [
            float(layer.get_delta_weight("default").detach().square().sum())
            for _, layer in model.named_modules()
            if "default" in getattr(layer, "r", {})
        ]
    assert sorted(found.values) == pytest.approx(sorted(norms), rel=1e-4)
    assert all(len(curve) == 2 for curve in found.curves)


@pytest.mark.parametrize(
    "training",
    [
        TrainingSpec(epochs=2, batch=3, accumulation=2),
        TrainingSpec(epochs=0.5, batch=4),
        TrainingSpec(steps=7, batch=3, accumulation=2),
        TrainingSpec(steps=1, batch=40),
    ],
)
def test_rows_are_counted_as_they_are_read(prepared, training):
    rows = prepared.train.rows[:17]
    reading = windows(rows, training, seed=0, masking=None)
    visits = sum(len(next(reading)) for _ in range(num_steps(training, len(rows))))
    assert rows_read(training, len(rows)) == visits
