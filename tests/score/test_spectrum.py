"""Spectra of mean gradients against singular values of autograd's."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gradient_cases import mean_gradients, rows_of, subject_of

from loratlas.errors import TrialError
from loratlas.score.spectrum import GradientSpectrum
from tiny_models import fresh

TASKS = {"gpt2": "causal", "llama": "causal", "bert": "masked", "t5": "seq2seq"}
CLOSE = {"rtol": 1e-4, "atol": 1e-10}


def spectra(subject, rows=slice(None)):
    """Squared singular values of the mean gradients of some rows, by site, in float64."""
    means = mean_gradients(replace(subject, rows=subject.rows[rows]))
    return [torch.linalg.svdvals(mean).square().sum(0).numpy() for mean in means]


@pytest.mark.parametrize("family", TASKS)
def test_curves_are_squared_singular_values(family):
    """With 16 ranks a basis has 40 columns: more than any map of width 32 has directions."""
    subject = subject_of(fresh(family), task=TASKS[family])
    found = GradientSpectrum().measure(subject)
    for exact, curve, value in zip(spectra(subject), found.curves, found.values, strict=True):
        np.testing.assert_allclose(curve, exact[:16], rtol=1e-4, atol=1e-6 * exact[0])
        assert value == pytest.approx(exact[:16].sum(), rel=1e-4)
    assert (found.num_forwards, found.num_backwards) == (6, 6)


def test_halves_are_spectra_of_the_rows_of_each_half():
    """In the basis of all rows, which holds nearly all of what their gradients reach."""
    subject = subject_of(fresh("gpt2"), rows=rows_of(7))
    found = GradientSpectrum().measure(subject)
    for half, rows in zip(found.halves, (slice(4), slice(4, None)), strict=True):
        exact = np.array([each[:16].sum() for each in spectra(subject, rows)])
        np.testing.assert_allclose(half, exact, rtol=0.02)


def test_standard_errors_are_those_of_groups_left_out():
    subject = subject_of(fresh("llama"), paths=["model.layers.1.mlp.up_proj"])
    found = GradientSpectrum().measure(subject)
    rows = subject.rows
    # Six rows are four groups: of two rows, one, two and one.
    kept = ([2, 3, 4, 5], [0, 1, 3, 4, 5], [0, 1, 2, 5], [0, 1, 2, 3, 4])
    left_out = [
        spectra(replace(subject, rows=[rows[n] for n in numbers]))[0][:16].sum() for numbers in kept
    ]
    wanted = np.sqrt(3 / 4 * np.square(left_out - np.mean(left_out)).sum())
    assert found.stderr == pytest.approx([wanted], rel=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_curves_of_wider_maps_are_near_the_truth(seed):
    """32 columns, where gradients have up to 96 directions and half of them in what is left out."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            n_embd=96, n_layer=2, n_head=4, n_positions=16, vocab_size=64,
            bos_token_id=1, eos_token_id=1,
        )
    )  # fmt: skip
    subject = subject_of(model, rows=rows_of(32), max_rank=4, seed=seed)
    found = GradientSpectrum().measure(subject)
    for exact, curve, value in zip(spectra(subject), found.curves, found.values, strict=True):
        assert exact[32:].any()
        assert value == pytest.approx(exact[:4].sum(), rel=0.15)
        np.testing.assert_allclose(curve, exact[:4], rtol=0.35)


def test_a_map_has_no_more_ranks_than_its_shorter_side():
    subject = subject_of(fresh("llama"), max_rank=40)
    for site, curve in zip(subject.sites, GradientSpectrum().measure(subject).curves, strict=True):
        assert len(curve) == min(40, site.d_in, site.d_out)
        assert (np.diff(curve) <= 0).all()


def test_what_goes_together_does_not_matter():
    subject = subject_of(fresh("bert"), task="masked")
    alone = GradientSpectrum().measure(replace(subject, batch=1))
    together = GradientSpectrum().measure(replace(subject, batch=6))
    np.testing.assert_allclose(together.values, alone.values, **CLOSE)
    np.testing.assert_allclose(together.halves, alone.halves, **CLOSE)


def test_the_seed_decides_no_more_than_rounding():
    subject = subject_of(fresh("gpt2"))
    first = GradientSpectrum().measure(subject)
    again = GradientSpectrum().measure(subject)
    other = GradientSpectrum().measure(replace(subject, seed=1))
    np.testing.assert_array_equal(first.values, again.values)
    np.testing.assert_allclose(other.values, first.values, **CLOSE)


def test_zero_gradients_have_a_flat_spectrum_of_zero():
    model = fresh("llama")
    torch.nn.init.zeros_(model.lm_head.weight)
    found = GradientSpectrum().measure(subject_of(model))
    assert not np.concatenate(found.curves).any()
    assert not found.stderr.any()


def test_a_gradient_that_is_no_number_ends_it(monkeypatch):
    """The loss is a number, and the way back is not."""
    model = fresh("llama")
    subject = subject_of(model)
    model.lm_head.register_forward_hook(
        lambda _, given, output: output + (given[0].sum() * 0).sqrt()
    )
    with pytest.raises(TrialError, match="gradient of the loss is no number"):
        GradientSpectrum().measure(subject)
