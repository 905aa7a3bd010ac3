"""Gradient energies against autograd, row by row, in every kind of model."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gradient_cases import as_linear, energies, mean_gradients, rows_of, subject_of

from loratlas.data.rows import frozen_marks
from loratlas.errors import TrialError
from loratlas.score.gradient import Gradient, GradientNormalised
from tiny_models import fresh

TASKS = {"gpt2": "causal", "llama": "causal", "bert": "masked", "t5": "seq2seq"}
# Sums of some thousand products in fp32, taken in another order.
CLOSE = {"rtol": 1e-4, "atol": 1e-12}


@pytest.fixture(params=list(TASKS))
def subject(request):
    return subject_of(fresh(request.param), task=TASKS[request.param])


def test_values_are_the_mean_energy_of_the_rows(subject):
    found, exact = Gradient().measure(subject), energies(subject)
    np.testing.assert_allclose(found.values, exact.mean(0), **CLOSE)
    standard = exact.std(0, ddof=1) / np.sqrt(len(exact))
    np.testing.assert_allclose(found.stderr, standard, rtol=1e-3)
    np.testing.assert_allclose(found.halves, [exact[:3].mean(0), exact[3:].mean(0)], **CLOSE)
    assert (found.num_forwards, found.num_backwards) == (6, 6)


def test_the_mean_gradient_is_that_of_the_training_loss(subject):
    """The scale of the reference above: Σ -ln p / Σ scored, as Trainer has it."""
    subject = replace(subject, sites=subject.sites[-1:])
    rows = subject.rows
    total = sum(row.num_scored for row in rows)
    alone = [mean_gradients(replace(subject, rows=[row]))[0] for row in rows]
    weighed = sum(g * row.num_scored for g, row in zip(alone, rows, strict=True)) / total
    torch.testing.assert_close(mean_gradients(subject)[0], weighed)


def test_tokens_are_counted_without_padding(subject):
    found = Gradient().measure(subject)
    read = [row.ids if row.source is None else row.source for row in subject.rows]
    source, target = sum(map(len, read)), sum(len(row.ids) for row in subject.rows)
    for site, count in zip(subject.sites, found.num_tokens, strict=True):
        crossing = site.role.family == "cross_attention" and site.role.part in "kv"
        assert count == (source if site.stack == "encoder" or crossing else target), site.path


@pytest.mark.parametrize("scorer", [Gradient(), GradientNormalised()], ids=lambda s: s.name)
def test_what_goes_together_does_not_matter(subject, scorer):
    alone = scorer.measure(replace(subject, batch=1))
    together = scorer.measure(replace(subject, batch=6))
    turned = scorer.measure(replace(subject, rows=subject.rows[::-1]))
    for other in (together, turned):
        np.testing.assert_allclose(other.values, alone.values, **CLOSE)
        np.testing.assert_allclose(other.stderr, alone.stderr, rtol=1e-3, atol=1e-12)
        np.testing.assert_array_equal(other.num_tokens, alone.num_tokens)
    np.testing.assert_allclose(together.halves, alone.halves, **CLOSE)
    np.testing.assert_allclose(turned.halves[::-1], alone.halves, **CLOSE)


def test_a_linear_map_scores_as_the_transposed_one():
    model = fresh("gpt2")
    before = Gradient().measure(subject_of(model))
    subject = subject_of(model)
    as_linear(model)
    np.testing.assert_allclose(Gradient().measure(subject).values, before.values, **CLOSE)


def test_ghost_norms_are_taken_where_rows_are_short(monkeypatch):
    """Up to 19 tokens, 32 by 48 gradients are dearer than products between tokens."""
    model = fresh("llama")
    subject = subject_of(model, paths=[f"model.layers.{n}.mlp.up_proj" for n in range(3)])
    direct = Gradient().measure(subject)

    def never(*_):
        raise AssertionError

    monkeypatch.setattr("loratlas.score.row_gradients.formed_norms", never)
    np.testing.assert_array_equal(Gradient().measure(subject).values, direct.values)


def test_long_rows_give_the_same_by_formed_gradients(monkeypatch):
    subject = subject_of(fresh("llama"))
    short = Gradient().measure(subject)
    from loratlas.score import row_gradients

    monkeypatch.setattr(row_gradients, "ghost_norms", row_gradients.formed_norms)
    np.testing.assert_allclose(Gradient().measure(subject).values, short.values, **CLOSE)


def test_biases_play_no_part():
    model = fresh("gpt2")
    for layer in model.transformer.h:
        torch.nn.init.normal_(layer.attn.c_attn.bias)
    subject = subject_of(model)
    exact = energies(subject).mean(0)
    np.testing.assert_allclose(Gradient().measure(subject).values, exact, **CLOSE)


def test_a_map_that_is_used_in_every_layer_has_one_gradient():
    from transformers import AlbertConfig, AlbertForMaskedLM

    config = AlbertConfig(
        hidden_size=32, embedding_size=16, intermediate_size=48, num_hidden_layers=3,
        num_attention_heads=4, vocab_size=64, max_position_embeddings=16,
    )  # fmt: skip
    subject = subject_of(AlbertForMaskedLM(config), task="masked")
    assert len(subject.sites) == 6
    found = Gradient().measure(subject)
    np.testing.assert_allclose(found.values, energies(subject).mean(0), **CLOSE)
    assert set(found.num_tokens) == {3 * sum(len(row.ids) for row in subject.rows)}


def test_a_classifier_is_scored_by_its_class():
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        vocab_size=64, max_position_embeddings=16, num_labels=2,
    )  # fmt: skip
    subject = subject_of(BertForSequenceClassification(config), task="classification")
    found = Gradient().measure(subject)
    np.testing.assert_allclose(found.values, energies(subject).mean(0), **CLOSE)


def test_a_base_in_bf16_scores_alike():
    """Its activations have 8 bits; energies are summed in fp32."""
    wide = subject_of(fresh("llama"))
    before = Gradient().measure(wide).values
    narrow = replace(wide, base=replace(wide.base, model=wide.base.model.bfloat16()))
    np.testing.assert_allclose(Gradient().measure(narrow).values, before, rtol=0.1)
    assert np.isfinite(GradientNormalised().measure(narrow).values).all()


def test_the_head_is_a_map_as_any_other():
    subject = subject_of(fresh("llama"), paths=["lm_head"])
    found = Gradient().measure(subject)
    np.testing.assert_allclose(found.values, energies(subject).mean(0), **CLOSE)


def test_rankings_do_not_depend_on_the_scale_of_the_loss(monkeypatch):
    subject = subject_of(fresh("llama"))
    before = Gradient().measure(subject).values
    real = torch.nn.functional.cross_entropy
    monkeypatch.setattr(
        torch.nn.functional, "cross_entropy", lambda *given, **more: 8 * real(*given, **more)
    )
    np.testing.assert_allclose(Gradient().measure(subject).values, 64 * before, rtol=1e-5)


def test_normalised_energies_are_divided_by_the_squared_norm_of_a_token():
    subject = subject_of(fresh("gpt2"))
    read = {site.path: [] for site in subject.sites}
    handles = [
        subject.base.model.get_submodule(path).register_forward_hook(
            lambda _, given, __, path=path: read[path].append(given[0].flatten(0, -2))
        )
        for path in read
    ]
    with torch.no_grad():
        for row in subject.rows:
            subject.base.model(input_ids=torch.tensor(np.array(row.ids))[None])
    for handle in handles:
        handle.remove()
    tokens = [torch.cat(each).square().sum(1).mean().item() for each in read.values()]
    found = GradientNormalised().measure(subject)
    np.testing.assert_allclose(found.values, energies(subject).mean(0) / tokens, **CLOSE)


def test_normalised_energies_do_not_change_when_inputs_are_rescaled():
    """Wx = (W/c)(cx): the same function, so the same score."""
    model = fresh("llama")
    subject = subject_of(model, paths=["model.layers.1.mlp.down_proj"])
    before = [scorer().measure(subject).values[0] for scorer in (Gradient, GradientNormalised)]
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight *= 4
        model.model.layers[1].mlp.down_proj.weight /= 4
    after = [scorer().measure(subject).values[0] for scorer in (Gradient, GradientNormalised)]
    assert after == pytest.approx([16 * before[0], before[1]], rel=1e-4)


def test_few_sites_that_hold_most_are_named():
    notes = Gradient().measure(subject_of(fresh("gpt2"))).notes
    assert any("of 12 sites with the largest values hold" in note for note in notes)


# What cannot be scored, and what has nothing to score --------------------------------------------


def test_zero_gradients_are_zero_scores_and_said_so():
    model = fresh("llama")
    torch.nn.init.zeros_(model.lm_head.weight)
    for scorer in (Gradient(), GradientNormalised()):
        found = scorer.measure(subject_of(model))
        for figures in (found.values, found.stderr, found.halves):
            assert not figures.any()
        assert "Every gradient is zero: these scores prefer no site." in found.notes


def test_a_site_that_no_token_reaches_scores_zero_and_is_named():
    model = fresh("llama")
    model.spare = torch.nn.Linear(3, 3)
    subject = subject_of(model)
    spare = replace(subject.sites[0], path="spare", d_in=3, d_out=3)
    for scorer in (Gradient(), GradientNormalised()):
        found = scorer.measure(replace(subject, sites=(spare, subject.sites[0])))
        assert (found.values[0], found.stderr[0], found.num_tokens[0]) == (0, 0, 0)
        assert found.values[1] > 0
        assert "No gradient reaches 1 of 2 sites, first spare: their value is 0." in found.notes


def test_a_subject_that_nothing_reaches_scores_zero():
    model = fresh("llama")
    model.spare = torch.nn.Linear(3, 3)
    subject = subject_of(model)
    spare = replace(subject.sites[0], path="spare", d_in=3, d_out=3)
    assert not Gradient().measure(replace(subject, sites=(spare,))).values.any()


def test_a_loss_that_is_no_number_ends_it():
    model = fresh("llama")
    subject = subject_of(model)
    torch.nn.init.constant_(model.lm_head.weight, float("nan"))
    with pytest.raises(TrialError, match=r"loss of training row \d is no number"):
        Gradient().measure(subject)


def test_rows_that_predict_nothing_are_left_out():
    rows = list(rows_of(6))
    silent = replace(rows[2], scored=frozen_marks(rows[2].scored & False))
    model = fresh("gpt2")
    found = Gradient().measure(subject_of(model, rows=(*rows[:2], silent, *rows[3:])))
    without = Gradient().measure(subject_of(model, rows=(*rows[:2], *rows[3:])))
    np.testing.assert_array_equal(found.values, without.values)
    assert "Left out: 1 of 6 rows predict nothing." in found.notes


def test_too_few_rows_are_refused():
    row = rows_of(1)[0]
    silent = replace(row, scored=frozen_marks(row.scored & False))
    subject = subject_of(fresh("gpt2"), rows=(row, silent))
    why = "1 of 2 rows have a token that is scored; at least 2 are needed"
    assert Gradient().why_not(subject) == why
    with pytest.raises(TrialError, match=why):
        Gradient().measure(subject)


def test_what_has_no_gradient_is_named():
    model = fresh("gpt2")
    subject = subject_of(model, paths=["transformer.wte"])
    assert Gradient().why_not(subject) == (
        "transformer.wte is an embedding table, and gradients are scored of linear maps alone"
    )
    subject = subject_of(model)
    missing = replace(subject, sites=(replace(subject.sites[0], path="transformer.h.9.c"),))
    assert Gradient().why_not(missing) == "GPT2LMHeadModel has no transformer.h.9.c"
    other = replace(subject, sites=(replace(subject.sites[0], path="transformer.ln_f"),))
    assert Gradient().why_not(other) == (
        "transformer.ln_f is a LayerNorm; gradients are known of Linear and Conv1D"
    )


def test_masked_rows_are_needed_of_a_masked_model():
    rows = tuple(replace(row, masked=None) for row in rows_of(4, task="masked"))
    why = Gradient().why_not(subject_of(fresh("bert"), task="masked", rows=rows))
    assert why is not None
    assert "nothing says how to mask" in why


def test_masks_are_those_of_the_first_epoch():
    from loratlas.data.masked import Masking
    from loratlas.train.randomness import masks

    model = fresh("bert")
    rows = tuple(replace(row, masked=None) for row in rows_of(6, task="masked"))
    masking = Masking(share=0.5, mask_id=VOCABULARY_END, vocabulary=64)
    found = Gradient().measure(subject_of(model, task="masked", rows=rows, masking=masking, seed=3))
    visited = tuple(masking.corrupt(row, masks(3, 0, n)) for n, row in enumerate(rows))
    exact = energies(subject_of(model, task="masked", rows=visited)).mean(0)
    np.testing.assert_allclose(found.values, exact, **CLOSE)


VOCABULARY_END = 63
