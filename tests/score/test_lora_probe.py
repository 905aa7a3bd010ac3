"""The probe against PEFT's own gradient of B, and its correction against ‖G‖²."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gradient_cases import loss_of, mean_gradients, rows_of, subject_of

from loratlas.placement.placement import LoraSpec, place
from loratlas.score.lora_probe import LoraProbe
from loratlas.train.adapters import new_adapters
from loratlas.train.verify import wrapped_layers
from tiny_models import fresh


@pytest.mark.parametrize(
    "lora",
    [LoraSpec(rank=4, alpha=8), LoraSpec(rank=2, alpha=1), LoraSpec(rank=8, scaling="rslora")],
    ids=str,
)
def test_values_are_peft_s_first_gradient_of_b_corrected(lora):
    subject = subject_of(fresh("gpt2"), lora=lora, seed=3)
    found = LoraProbe().measure(subject)
    placement = place(
        subject.anatomy, "all", rank=lora.rank, alpha=lora.alpha, scaling=lora.scaling
    )
    num_scored = sum(row.num_scored for row in subject.rows)
    with new_adapters(subject.base, placement, seed=3, dropout=0.0) as model:
        losses = [loss_of(subject, row) for row in subject.rows]
        (sum(losses) / num_scored).backward()
        pushed = {
            path: layer.lora_B["default"].weight.grad.double().square().sum().item()
            for path, layer in wrapped_layers(model).items()
        }
    scales = {adapter.site.path: placement.scale(adapter) for adapter in placement.adapters}
    for site, value in zip(subject.sites, found.values, strict=True):
        correction = 3 * site.d_in / (lora.rank * scales[site.path] ** 2)
        assert value == pytest.approx(pushed[site.path] * correction, rel=1e-4)


def test_the_correction_leaves_no_bias():
    """Over seeds the mean is ‖G‖² within four standard errors, at wide and at narrow inputs.

    Raw, c_fc with 32 inputs would have four times the energy of c_proj with 128.
    """
    paths = ["transformer.h.1.mlp.c_fc", "transformer.h.1.mlp.c_proj"]
    subject = subject_of(fresh("gpt2"), paths=paths, rows=rows_of(4))
    drawn = [LoraProbe().measure(replace(subject, seed=seed)).values for seed in range(150)]
    exact = [float(mean.square().sum()) for mean in mean_gradients(subject)]
    ratios = np.array(drawn) / exact
    error = ratios.std(0, ddof=1) / np.sqrt(len(ratios))
    assert (error < 0.05).all()
    assert (np.abs(ratios.mean(0) - 1) < 4 * error).all()


def test_standard_errors_hold_the_draw_of_a():
    """With rows that are all alike only A is left to chance, and the error is that over seeds."""
    row = rows_of(1)[0]
    rows = [replace(row, row=number) for number in range(4)]
    path = "transformer.h.1.mlp.c_fc"
    subject = subject_of(fresh("gpt2"), paths=[path], rows=rows, lora=LoraSpec(rank=8))
    found = [LoraProbe().measure(replace(subject, seed=seed)) for seed in range(60)]
    values = np.array([each.values[0] for each in found])
    told = np.sqrt(np.mean([each.stderr[0] ** 2 for each in found]))
    # The standard deviation of 60 draws is itself good to a tenth.
    assert told == pytest.approx(values.std(ddof=1), rel=0.4)


def test_standard_errors_of_one_rank_are_those_over_rows():
    found = LoraProbe().measure(subject_of(fresh("gpt2"), lora=LoraSpec(rank=1)))
    assert np.isfinite(found.stderr).all()
    assert (found.stderr > 0).all()


def test_halves_are_probed_with_the_same_a():
    subject = subject_of(fresh("llama"))
    found = LoraProbe().measure(subject)
    first = LoraProbe().measure(replace(subject, rows=subject.rows[:3]))
    second = LoraProbe().measure(replace(subject, rows=subject.rows[3:]))
    np.testing.assert_allclose(found.halves, [first.values, second.values], rtol=1e-4)


def test_what_goes_together_does_not_matter():
    subject = subject_of(fresh("t5"), task="seq2seq")
    alone = LoraProbe().measure(replace(subject, batch=1))
    together = LoraProbe().measure(replace(subject, batch=6))
    np.testing.assert_allclose(together.values, alone.values, rtol=1e-4, atol=1e-12)


def test_zero_gradients_are_zero_scores():
    model = fresh("llama")
    torch.nn.init.zeros_(model.lm_head.weight)
    found = LoraProbe().measure(subject_of(model))
    for figures in (found.values, found.stderr, found.halves):
        assert not figures.any()


def test_how_much_a_few_draws_tell_is_said():
    found = LoraProbe().measure(subject_of(fresh("gpt2"), lora=LoraSpec(rank=8)))
    assert any("rests on 8 random directions" in note and "50%" in note for note in found.notes)
