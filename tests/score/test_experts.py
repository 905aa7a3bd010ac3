"""Stacked experts and routers, whose gradients are formed one row at a time."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from gradient_cases import energies, mean_gradients, rows_of, subject_of

from loratlas.score import experts
from loratlas.score.gradient import Gradient, GradientNormalised
from loratlas.score.lora_probe import LoraProbe
from loratlas.score.spectrum import GradientSpectrum
from tiny_models import fresh

CLOSE = {"rtol": 1e-4, "atol": 1e-12}


def gpt_oss():
    config = transformers.GptOssConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, num_local_experts=4, num_experts_per_tok=2,
        vocab_size=64,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.GptOssForCausalLM(config)


MODELS = {
    "mixtral": lambda: fresh("mixtral"),
    "qwen3_moe": lambda: fresh("qwen3_moe"),
    "gpt_oss": gpt_oss,
}


@pytest.fixture(params=list(MODELS))
def subject(request):
    return subject_of(MODELS[request.param]())


def test_energies_of_experts_are_summed(subject):
    exact = energies(subject)
    found = Gradient().measure(subject)
    np.testing.assert_allclose(found.values, exact.mean(0), **CLOSE)
    np.testing.assert_allclose(found.halves, [exact[:3].mean(0), exact[3:].mean(0)], **CLOSE)


def test_experts_count_the_tokens_that_they_are_sent(subject):
    num_tokens = sum(len(row.ids) for row in subject.rows)
    for site, count in zip(subject.sites, Gradient().measure(subject).num_tokens, strict=True):
        # Two experts a token.
        assert count == num_tokens * (2 if site.num_experts else 1), site.path


@pytest.fixture
def idle():
    """A model whose first layer sends every token to the same two experts of four."""
    model = fresh("mixtral")
    torch.nn.init.zeros_(model.model.layers[0].mlp.gate.weight)
    return subject_of(model, kind="expert")


def counted(subject, layer):
    """Tokens of each expert of a layer, by its router's own choice."""
    sent = []
    gate = subject.base.model.model.layers[layer].mlp.gate
    handle = gate.register_forward_hook(lambda *given: sent.append(given[2][2].flatten()))
    with torch.no_grad():
        for row in subject.rows:
            subject.base.model(input_ids=torch.tensor(np.array(row.ids))[None])
    handle.remove()
    return torch.bincount(torch.cat(sent), minlength=4).tolist()


@pytest.mark.parametrize(
    "scorer", [Gradient(), GradientSpectrum(), LoraProbe()], ids=lambda scorer: scorer.name
)
def test_idle_experts_count_no_token_and_give_zero(idle, scorer):
    assert sorted(counted(idle, 0))[:2] == [0, 0]
    found = scorer.measure(idle)
    # Two layers of four experts, whose two parameters count once.
    num_idle = sum(counted(idle, layer).count(0) for layer in (0, 1))
    assert f"{num_idle} of 8 experts were sent no token and count as 0." in found.notes
    for site, tokens in zip(idle.sites, found.expert_tokens, strict=True):
        # A router is one map.
        assert tokens == (counted(idle, site.layer) if site.num_experts else None), site.path
    for figures in (found.values, found.stderr, found.halves):
        assert np.isfinite(figures).all()
    np.testing.assert_allclose(Gradient().measure(idle).values, energies(idle).mean(0), rtol=1e-4)


def test_counts_are_read_from_indices_and_from_numbers():
    chosen = torch.tensor([[0, 2], [2, 3]])
    assert experts._counts((torch.zeros(2, 5), chosen), 4).tolist() == [1, 0, 2, 1]
    # One more than there are experts stands for a place left free.
    assert experts._counts((torch.tensor([[0, 4], [4, 4]]),), 4).tolist() == [1, 0, 0, 0]
    assert experts._counts((torch.zeros(2, 5), [3, 0, 1, 0]), 4).tolist() == [3, 0, 1, 0]
    assert experts._counts((torch.zeros(2, 5),), 4) is None
    assert experts._counts((chosen,), None) is None


def test_routers_are_scored_as_the_maps_that_they_are():
    subject = subject_of(fresh("mixtral"))
    routers = tuple(site for site in subject.sites if str(site.role) == "router")
    assert [(site.kind, site.num_experts) for site in routers] == [("expert", None)] * 2
    subject = replace(subject, sites=routers)
    np.testing.assert_allclose(
        Gradient().measure(subject).values, energies(subject).mean(0), **CLOSE
    )


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss"])
def test_the_spectrum_of_experts_is_summed_rank_by_rank(family):
    subject = subject_of(MODELS[family](), kind="expert")
    found = GradientSpectrum().measure(subject)
    for mean, curve in zip(mean_gradients(subject), found.curves, strict=True):
        wanted = torch.linalg.svdvals(mean)[:, :16].square().sum(0)
        np.testing.assert_allclose(curve, wanted, rtol=1e-4, atol=1e-10)


def test_each_expert_is_probed_with_the_a_that_peft_would_give_it():
    from loratlas.placement.placement import place
    from loratlas.score.low_rank import factors_of
    from loratlas.train.adapters import new_adapters

    subject = subject_of(fresh("mixtral"), seed=5)
    placement = place(subject.anatomy, "expert", rank=4, alpha=8)
    with new_adapters(subject.base, placement, seed=5, dropout=0.0) as model:
        drawn = factors_of(model, placement)
    subject = replace(subject, sites=tuple(adapter.site for adapter in placement.adapters))
    found = LoraProbe().measure(subject)
    for site, mean, value in zip(subject.sites, mean_gradients(subject), found.values, strict=True):
        pushed = mean @ drawn[site.path].a.double().mT
        wanted = float(pushed.square().sum()) * 3 * site.d_in / 4
        assert value == pytest.approx(wanted, rel=1e-4)


def test_a_complete_gradient_is_handed_over_and_dropped_before_the_next(monkeypatch):
    """What autograd holds until a gradient is complete is its own, and shows nowhere."""
    subject = subject_of(fresh("mixtral"))
    parameters = [
        subject.base.model.get_parameter(site.path)
        for site in subject.sites
        if site.kind == "expert"
    ]
    held = []
    real = experts.ParameterTap.on_gradient

    def on_gradient(tap, parameter):
        held.append(sum(each.grad is not None for each in parameters))
        real(tap, parameter)

    monkeypatch.setattr(experts.ParameterTap, "on_gradient", on_gradient)
    Gradient().measure(subject)
    assert set(held) == {1}


def test_inputs_of_experts_do_not_show(subject):
    hidden = next(site for site in subject.sites if site.kind == "expert")
    assert GradientNormalised().why_not(subject) == (
        f"{hidden.path} is a bare parameter, and what it reads shows at no module's door; "
        "score it with gradient, or choose among the other sites"
    )
    assert Gradient().why_not(subject) is None


def test_quantised_experts_are_refused():
    model = fresh("mixtral")
    subject = subject_of(model, kind="expert", rows=rows_of(2))
    path = next(site.path for site in subject.sites if site.role.part == "down")
    holder = model.get_submodule(path.rpartition(".")[0])
    holder.down_proj = torch.nn.Parameter(holder.down_proj.to(torch.int8), requires_grad=False)
    why = f"{path} is quantised (torch.int8), and torch takes no gradient of it"
    assert Gradient().why_not(subject) == why


def test_a_parameter_of_another_shape_is_refused():
    model = fresh("mixtral")
    subject = subject_of(model, kind="expert")
    site = next(site for site in subject.sites if site.role.part == "gate_up")
    site = replace(site, d_in=7)
    why = Gradient().why_not(replace(subject, sites=(site,)))
    assert why == f"{site.path} has the shape (4, 96, 32), which its site does not"
