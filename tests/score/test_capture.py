"""What hooks see, and that the base is given back as it was."""

from dataclasses import replace

import pytest
import torch
from gradient_cases import rows_of, subject_of

from loratlas.errors import TrialError
from loratlas.score.backward import batches, read_backward
from loratlas.score.capture import Tokens, by_row
from loratlas.score.gradient import Gradient
from loratlas.score.lora_probe import LoraProbe
from loratlas.score.sample import sample_of
from loratlas.score.spectrum import GradientSpectrum
from tiny_models import fresh

SCORERS = [Gradient(), GradientSpectrum(), LoraProbe()]


def state_of(model):
    """All that scoring could leave behind."""
    hooks = (
        "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks",
        "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs",
    )  # fmt: skip
    return (
        [
            (len(getattr(module, name)), module.training)
            for module in model.modules()
            for name in hooks
        ],
        [
            (p.requires_grad, p.grad, p._version, len(p._post_accumulate_grad_hooks or ()))
            for p in model.parameters()
        ],
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("family", ["gpt2", "mixtral"])
@pytest.mark.parametrize("scorer", SCORERS, ids=lambda scorer: scorer.name)
def test_the_base_is_given_back_as_it_was(scorer, family, training):
    model = fresh(family)
    subject = subject_of(model)
    model.train(training)
    before = state_of(model)
    scorer.measure(subject)
    assert state_of(model) == before


@pytest.mark.parametrize("family", ["gpt2", "mixtral"])
def test_the_base_is_given_back_when_scoring_fails_on_the_way_back(family):
    model = fresh(family)
    subject = subject_of(model)
    before = state_of(model)

    def fail(seen):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_backward(subject, sample_of(subject), fail)
    assert state_of(model) == before


def test_a_gradient_that_somebody_else_keeps_is_left_alone():
    model = fresh("mixtral")
    subject = subject_of(model, kind="expert")
    parameter = model.get_parameter(subject.sites[0].path)
    parameter.grad = torch.ones_like(parameter)
    Gradient().measure(subject)
    assert torch.equal(parameter.grad, torch.ones_like(parameter))


def test_scoring_asks_for_gradients_where_its_caller_does_not():
    subject = subject_of(fresh("gpt2"))
    with torch.no_grad():
        inside = Gradient().measure(subject)
    assert inside.values.all()


def test_the_way_back_ends_at_the_lowest_site():
    """Below it nothing has a gradient: a hook there would never be called."""
    model = fresh("gpt2")
    below = []

    def note(module, given, output):
        below.append(output.requires_grad)

    handle = model.transformer.h[0].mlp.c_fc.register_forward_hook(note)
    Gradient().measure(subject_of(model, paths=["transformer.h.1.mlp.c_fc"]))
    handle.remove()
    assert below
    assert not any(below)


def test_each_row_comes_to_each_site_once():
    subject = subject_of(fresh("gpt2"))
    seen = []
    read_backward(
        subject, sample_of(subject), lambda s: seen.extend((s.site, n) for n in s.rows.tolist())
    )
    assert sorted(seen) == [(site, row) for site in range(12) for row in range(6)]


def test_batches_hold_rows_of_about_one_length():
    subject = subject_of(fresh("gpt2"), rows=rows_of(6, shortest=90, longest=200))
    found = list(batches(subject.rows, 4))
    assert [len(each) for each in found] == [4, 2]
    lengths = [subject.rows[index].num_read for each in found for index in each]
    assert lengths == sorted(lengths, reverse=True)


def test_short_rows_go_with_more_of_their_like():
    rows = rows_of(100, shortest=8, longest=8)
    assert [len(each) for each in batches(rows, 4)] == [64, 36]
    assert [len(each) for each in batches(rows, 1)] == [1] * 100


def test_rows_are_told_apart_by_the_shape_of_what_a_map_reads():
    tokens = Tokens(torch.ones(2, 3, dtype=torch.bool), padded=False)
    assert by_row(torch.zeros(2, 3, 5), tokens).shape == (2, 3, 5)
    assert by_row(torch.zeros(6, 5), tokens).shape == (2, 3, 5)
    assert by_row(torch.zeros(2, 5), tokens).shape == (2, 1, 5)
    assert by_row(torch.zeros(3, 2, 5), tokens) is None
    assert by_row(torch.zeros(4, 5), tokens) is None
    alone = Tokens(torch.ones(1, 3, dtype=torch.bool), padded=False)
    assert by_row(torch.zeros(3, 1, 5), alone).shape == (1, 3, 5)


class Overwriting(torch.nn.Module):
    """Changes what a map has read before the way back."""

    def __init__(self, linear):
        super().__init__()
        self.inner = linear

    def forward(self, hidden):
        read = hidden.clone()
        given = self.inner(read)
        read.add_(1)
        return given


def test_a_model_that_overwrites_what_a_map_has_read_is_refused():
    model = fresh("llama")
    path = "model.layers.0.mlp.up_proj"
    subject = subject_of(model, paths=[path])
    model.model.layers[0].mlp.up_proj = Overwriting(model.model.layers[0].mlp.up_proj)
    sites = (replace(subject.sites[0], path=f"{path}.inner"),)
    with pytest.raises(TrialError, match="overwrites what this map has read"):
        Gradient().measure(replace(subject, sites=sites))


class Turned(torch.nn.Module):
    """Hands a map its tokens as (tokens, rows, width)."""

    def __init__(self, linear):
        super().__init__()
        self.inner = linear

    def forward(self, hidden):
        return self.inner(hidden.transpose(0, 1)).transpose(0, 1)


def test_rows_that_a_map_would_mix_go_one_by_one():
    model = fresh("llama")
    path = "model.layers.0.mlp.up_proj"
    subject = subject_of(model, paths=[path])
    wanted = Gradient().measure(subject).values
    model.model.layers[0].mlp.up_proj = Turned(model.model.layers[0].mlp.up_proj)
    turned = replace(subject, sites=(replace(subject.sites[0], path=f"{path}.inner"),))
    assert Gradient().measure(turned).values == pytest.approx(wanted, rel=1e-5)
