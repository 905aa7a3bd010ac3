"""Experts that are modules of their own, as in Switch Transformers: some are sent no token."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gradient_cases import rows_of, subject_of
from transformers import SwitchTransformersConfig, SwitchTransformersForConditionalGeneration

from loratlas.score.eva import Eva
from loratlas.score.gradient import Gradient
from loratlas.score.inputs import is_expert_module
from loratlas.score.plop import Plop, PlopSite


@pytest.fixture(scope="module")
def subject():
    """A model whose routers send every token to the first of four experts."""
    torch.manual_seed(0)
    config = SwitchTransformersConfig(
        d_model=32, d_ff=48, d_kv=8, num_heads=4, num_layers=2, num_decoder_layers=2,
        num_sparse_encoder_layers=1, num_sparse_decoder_layers=1, num_experts=4, vocab_size=64,
        decoder_start_token_id=0, pad_token_id=0,
    )  # fmt: skip
    model = SwitchTransformersForConditionalGeneration(config)
    for name, parameter in model.named_parameters():
        if name.endswith("router.classifier.weight"):
            torch.nn.init.zeros_(parameter)
    subject = subject_of(model, task="seq2seq", rows=rows_of(6, task="seq2seq"))
    # A router's weight of zero has no feature norm.
    subject = replace(subject, sites=[s for s in subject.sites if str(s.role) != "router"])
    assert len([site for site in subject.sites if is_expert_module(site)]) == 2 * 4 * 2
    return subject


def is_idle(site):
    return is_expert_module(site) and "expert_0" not in site.path


def test_an_idle_expert_has_the_mean_of_its_role_and_that_is_said(subject):
    found = PlopSite().measure(subject)
    idle = [number for number, site in enumerate(subject.sites) if is_idle(site)]
    assert len(idle) == 12
    for number, site in enumerate(subject.sites):
        assert bool(found.num_tokens[number]) is not is_idle(site), site.path
    for number in idle:
        role = subject.sites[number].role
        others = [
            value
            for site, value in zip(subject.sites, found.values, strict=True)
            if site.role == role and not is_idle(site)
        ]
        assert found.values[number] == pytest.approx(np.mean(others))
    said = (
        f"12 of {len(subject.sites)} sites read no token, first {subject.sites[idle[0]].path}: the "
        "mean of the others of their role stands for them."
    )
    assert said in found.notes
    assert said in Plop().measure(subject).notes


def test_gradients_reach_no_idle_expert(subject):
    found = Gradient().measure(subject)
    for site, value in zip(subject.sites, found.values, strict=True):
        assert bool(value) is not is_idle(site), site.path
    assert found.notes[0].startswith(f"No gradient reaches 12 of {len(subject.sites)} sites, first")


def test_eva_refuses_them(subject):
    first = next(site for site in subject.sites if is_expert_module(site))
    assert Eva().why_not(subject) == (
        f"{first.path} is a map of one expert, and which of the tokens that it is sent are targets "
        "does not show; choose among the other sites"
    )
