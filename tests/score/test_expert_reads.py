"""What stacked experts read: put together again, it is what their module gives."""

import numpy as np
import pytest
import torch
from forward_subjects import family_subject

from loratlas.score.eva import Eva
from loratlas.score.expert_reads import expert_reads, expert_weights
from loratlas.score.inputs import Call, maps_of, read_forward
from loratlas.score.plop import FeatureNorms, Plop, PlopSite, _Map
from loratlas.score.sample import holder_of


@pytest.fixture(scope="module", params=["mixtral", "qwen3_moe"])
def subject(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("experts") / request.param
    return family_subject(request.param, folder, rule="expert", batch=3)


def calls_of(subject):
    """Return every call of the modules of a subject's sites."""
    calls = []
    read_forward(subject, maps_of(subject), calls.append)
    return calls


def weights_of(call):
    """Return the experts of each token and their weights."""
    index, weight = call.beside[:2]
    return [
        each.unflatten(0, call.present.shape)[call.present] if each.dim() == 2 else each
        for each in (index, weight)
    ]


def test_the_outputs_of_second_maps_add_up_to_those_of_the_module(subject):
    sites = subject.sites
    for call in calls_of(subject):
        site = sites[call.site]
        if str(site.role) != "expert.down":
            continue
        index, weight = weights_of(call)
        total = torch.zeros_like(call.outputs)
        for read in expert_reads(call, site, holder_of(subject.base.model, site)[0]):
            of_expert = (weight * (index == read.expert)).sum(1)[read.tokens]
            total[read.tokens] += of_expert[:, None] * read.outputs
        assert torch.allclose(total, call.outputs, atol=1e-5)


def by_hand(subject, number, part=slice(None)):
    """Return an expert site's NFN, pair of token and expert by pair."""
    site = subject.sites[number]
    module, _ = holder_of(subject.base.model, site)
    weights = expert_weights(site, module).double()
    found = []
    for call in calls_of(subject):
        if call.site == number:
            for read in expert_reads(call, site, module):
                weight = weights[read.expert][part]
                inputs = read.inputs.double()
                stretch = (inputs @ weight.T).norm(dim=1) / inputs.norm(dim=1)
                found.append(stretch * site.d_in**0.5 / weight.norm())
    return torch.cat(found)


def test_experts_have_the_mean_over_the_tokens_that_they_are_sent(subject):
    found = PlopSite().measure(subject)
    num_tokens = sum(len(row.ids) for row in subject.rows)
    for number, site in enumerate(subject.sites):
        stretch = by_hand(subject, number)
        assert found.values[number] == pytest.approx(float(stretch.mean()), rel=1e-5)
        # Each token goes to two experts.
        assert found.num_tokens[number] == len(stretch) == 2 * num_tokens
        assert site.num_experts == 4
    assert not found.notes


def test_gate_and_up_have_values_of_their_own(subject):
    found = PlopSite().measure(subject)
    for number, site in enumerate(subject.sites):
        if site.role.part == "gate_up":
            half = site.d_out // 2
            for name, part in (("gate", slice(None, half)), ("up", slice(half, None))):
                expected = float(by_hand(subject, number, part).mean())
                assert found.slices[number][name] == pytest.approx(expected, rel=1e-5)


def test_experts_of_one_role_share_their_mean(subject):
    values = Plop().measure(subject).values
    assert len(set(values)) == len({str(site.role) for site in subject.sites}) == 2


def test_experts_without_tokens_are_counted(subject):
    site = subject.sites[0]
    call = calls_of(subject)[0]
    assert call.site == 0
    # As if all tokens of the pass had gone to the experts 0 and 2.
    index = torch.zeros_like(call.beside[0])
    index[:, 1] = 2
    sent = Call(
        site=0, rows=call.rows, scored=call.scored, read=call.read, gave=call.gave,
        present=call.present, beside=(index, call.beside[1]),
    )  # fmt: skip
    module, _ = holder_of(subject.base.model, site)
    assert [read.expert for read in expert_reads(sent, site, module)] == [0, 2]
    norms = FeatureNorms(subject, [_Map(0)])
    norms.add(sent)
    # Of three layers of four experts, which each have two maps.
    assert list(norms.notes()) == ["10 of 12 experts were sent no token and take no part."]


def test_eva_says_that_it_does_not_know_experts(subject):
    assert "gate_up_proj is a bare parameter, and what it reads" in Eva().why_not(subject)


def test_a_router_is_no_expert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("router") / "mixtral"
    subject = family_subject("mixtral", folder, rule="router")
    assert "is a bare parameter, and what it reads shows at" in Plop().why_not(subject)


def test_transposed_weights_biases_and_other_gates():
    """GPT-OSS: weights as (d_in, d_out), gate and up in turn, a gate that is clamped."""
    from transformers import GptOssConfig
    from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts

    import anatomies

    torch.manual_seed(0)
    config = GptOssConfig(hidden_size=16, intermediate_size=24, num_local_experts=4)
    config._experts_implementation = "eager"
    module = GptOssExperts(config).eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    sites = {
        "gate_up_proj": anatomies.site("x.gate_up_proj", "expert.gate_up", 16, 48, num_experts=4),
        "down_proj": anatomies.site("x.down_proj", "expert.down", 24, 16, num_experts=4),
    }
    tokens, index = torch.randn(6, 16), torch.randint(0, 4, (6, 2))
    index[:, 1] = (index[:, 0] + 1) % 4
    weight = torch.rand(6, 2)
    with torch.no_grad():
        gave = module(tokens, index, weight)
        call = Call(
            site=0, rows=np.arange(6), scored=torch.ones(6, dtype=torch.bool), read=tokens[:, None],
            gave=gave[:, None], present=torch.ones(6, 1, dtype=torch.bool), beside=(index, weight),
        )  # fmt: skip
        total = torch.zeros(6, 16)
        for read in expert_reads(call, sites["down_proj"], module):
            of_expert = (weight * (index == read.expert)).sum(1)[read.tokens]
            made = read.outputs + module.down_proj_bias[read.expert]
            total[read.tokens] += of_expert[:, None] * made
        for read in expert_reads(call, sites["gate_up_proj"], module):
            own = tokens[read.tokens] @ module.gate_up_proj[read.expert]
            assert torch.allclose(read.outputs, own, atol=1e-5)
    assert torch.allclose(total, gave, rtol=1e-4, atol=1e-4)
