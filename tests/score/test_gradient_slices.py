"""Parts of fused outputs, against the layouts that transformers' sources show."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from gradient_cases import loss_of, subject_of, weight_of

from loratlas.anatomy.sites import Role
from loratlas.score.gradient import Gradient, GradientNormalised
from loratlas.score.lora_probe import LoraProbe
from loratlas.score.slices import Slices
from loratlas.score.spectrum import GradientSpectrum
from tiny_models import fresh

HEADS, WIDTH = 4, 8
SIZES = {"hidden_size": 32, "num_attention_heads": HEADS, "num_hidden_layers": 2, "vocab_size": 64}
GROUPED = {**SIZES, "intermediate_size": 48, "num_key_value_heads": 2, "pad_token_id": 0}


def runs(**lengths):
    """Parts one after another."""
    ends = np.cumsum(list(lengths.values())).tolist()
    return {
        name: list(range(end - length, end))
        for (name, length), end in zip(lengths.items(), ends, strict=True)
    }


def by_group(groups, **heads):
    """In each group so many heads of each part."""
    each = sum(heads.values())
    index = np.arange(groups * each * WIDTH).reshape(groups, each, WIDTH)
    starts = dict(zip(heads, np.cumsum([0, *heads.values()]).tolist(), strict=False))
    return {
        name: index[:, start : start + heads[name]].flatten().tolist()
        for name, start in starts.items()
    }


THIRDS = runs(q=32, k=32, v=32)
BY_HEAD = by_group(HEADS, q=1, k=1, v=1)
ONE_KEY = runs(q=32, k=8, v=8)

ATTENTION = {
    "gpt2": (lambda: fresh("gpt2"), "causal", THIRDS),
    "gpt_neox": (
        lambda: made("GPTNeoX", "CausalLM", **SIZES, intermediate_size=48), "causal", BY_HEAD,
    ),
    "bloom": (
        lambda: made("Bloom", "CausalLM", hidden_size=32, n_head=4, n_layer=2, vocab_size=64),
        "causal",
        BY_HEAD,
    ),
    "falcon": (lambda: made("Falcon", "CausalLM", **SIZES), "causal", ONE_KEY),
    "falcon, heads": (
        lambda: made("Falcon", "CausalLM", **SIZES, multi_query=False), "causal", BY_HEAD,
    ),
    "falcon, groups": (
        lambda: made("Falcon", "CausalLM", **SIZES, new_decoder_architecture=True, num_kv_heads=2),
        "causal",
        by_group(2, q=2, k=1, v=1),
    ),
    "falcon, alibi": (lambda: made("Falcon", "CausalLM", **SIZES, alibi=True), "causal", ONE_KEY),
    "gpt_bigcode": (
        lambda: made("GPTBigCode", "CausalLM", n_embd=32, n_head=4, n_layer=2, vocab_size=64),
        "causal",
        ONE_KEY,
    ),
    "phi3": (lambda: made("Phi3", "CausalLM", **GROUPED), "causal", runs(q=32, k=16, v=16)),
    "modernbert": (
        lambda: made("ModernBert", "MaskedLM", **SIZES, intermediate_size=48, pad_token_id=0),
        "masked",
        THIRDS,
    ),
    "deberta": (
        lambda: made(
            "Deberta", "MaskedLM", **SIZES, intermediate_size=48, relative_attention=True,
            pos_att_type=["c2p", "p2c"],
        ),
        "masked",
        BY_HEAD,
    ),
}  # fmt: skip
HALVES = {"gate": list(range(48)), "up": list(range(48, 96))}
ALTERNATING = {"gate": list(range(0, 96, 2)), "up": list(range(1, 96, 2))}
GATED = {
    "phi3": (ATTENTION["phi3"][0], "causal", HALVES),
    "modernbert": (ATTENTION["modernbert"][0], "masked", HALVES),
    "mixtral": (lambda: fresh("mixtral"), "causal", HALVES),
    "qwen3_moe": (lambda: fresh("qwen3_moe"), "causal", HALVES),
    "gpt_oss": (
        lambda: made(
            "GptOss", "CausalLM", **GROUPED, head_dim=8, num_local_experts=4, num_experts_per_tok=2,
        ),
        "causal",
        ALTERNATING,
    ),
}  # fmt: skip


def made(name, kind, **settings):
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**settings)
    model = getattr(transformers, f"{name}For{kind}", None)
    return (model or getattr(transformers, name + kind))(config)


def parts_found(subject):
    """Parts by path, as lists of indices."""
    slices = Slices(subject)
    return {
        site.path: dict(zip(names, [each.tolist() for each in parts], strict=True))
        for site, names, parts in zip(subject.sites, slices.names, slices.parts, strict=True)
        if names is not None
    }


def fused(subject, *parts):
    return [site for site in subject.sites if site.role.part in parts]


@pytest.mark.parametrize("family", ATTENTION)
def test_queries_keys_and_values_are_where_the_sources_have_them(family):
    make, task, layout = ATTENTION[family]
    subject = subject_of(make(), task=task)
    sites = fused(subject, "qkv")
    assert len(sites) == subject.anatomy.num_layers
    found = parts_found(subject)
    for site in sites:
        assert found[site.path] == layout


@pytest.mark.parametrize("family", ["gpt2", "phi3", "falcon, groups", "modernbert"])
def test_they_are_the_same_in_bf16(family):
    make, task, layout = ATTENTION[family]
    subject = subject_of(make().bfloat16(), task=task)
    found = parts_found(subject)
    for site in fused(subject, "qkv"):
        assert found[site.path] == layout


def test_parts_are_found_among_many_outputs_whatever_is_drawn():
    """Of 768 outputs none may be mistaken by chance."""
    subject = subject_of(
        made("GPT2", "LMHeadModel", n_embd=256, n_layer=1, n_head=4, vocab_size=64)
    )
    (site,) = fused(subject, "qkv")
    for seed in range(20):
        found = parts_found(replace(subject, sites=(site,), seed=seed))
        assert found[site.path] == runs(q=256, k=256, v=256)


@pytest.mark.parametrize("family", GATED)
def test_gates_are_where_the_sources_have_them(family):
    make, task, layout = GATED[family]
    subject = subject_of(make(), task=task)
    found = parts_found(subject)
    assert fused(subject, "gate_up")
    for site in fused(subject, "gate_up"):
        assert found[site.path] == layout


class Apart(torch.nn.Module):
    """A fused map as one map for each part."""

    def __init__(self, weight, bias, layout):
        super().__init__()
        self.layout = layout
        self.maps = torch.nn.ModuleDict()
        for name, rows in layout.items():
            self.maps[name] = torch.nn.Linear(weight.shape[1], len(rows), bias=bias is not None)
            self.maps[name].weight.data = weight[rows].clone()
            if bias is not None:
                self.maps[name].bias.data = bias[rows].clone()

    def forward(self, hidden):
        given = torch.cat([each(hidden) for each in self.maps.values()], dim=-1)
        order = torch.tensor([row for rows in self.layout.values() for row in rows])
        return given[..., order.argsort()]


def split_by_hand(subject, site, layout):
    """Return the mean energy of each part's own weight by autograd, from a model that is split."""
    model = subject.base.model
    module = model.get_submodule(site.path)
    weight = module.weight.data.T if site.kind == "conv1d" else module.weight.data
    bias = None if module.bias is None else module.bias.data
    parent, _, child = site.path.rpartition(".")
    apart = Apart(weight, bias, layout)
    setattr(model.get_submodule(parent), child, apart)
    scale = np.mean([row.num_scored for row in subject.rows]) ** -2
    energies = dict.fromkeys(layout, 0.0)
    for row in subject.rows:
        weights = [each.weight for each in apart.maps.values()]
        for name, g in zip(
            layout, torch.autograd.grad(loss_of(subject, row), weights), strict=True
        ):
            energies[name] += float(g.double().square().sum()) * scale / len(subject.rows)
    setattr(model.get_submodule(parent), child, module)
    return energies


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "phi3", "falcon, groups", "modernbert"])
def test_parts_have_the_values_of_maps_that_are_split(family):
    make, task, _ = ATTENTION[family]
    subject = subject_of(make(), task=task)
    found, layouts = Gradient().measure(subject), parts_found(subject)
    for number, site in enumerate(subject.sites):
        if site.path in layouts:
            wanted = split_by_hand(subject, site, layouts[site.path])
            assert found.slices[number] == pytest.approx(wanted, rel=1e-4)
        else:
            assert found.slices[number] is None


@pytest.mark.parametrize(
    "scorer",
    [Gradient(), GradientNormalised(), GradientSpectrum(), LoraProbe()],
    ids=lambda scorer: scorer.name,
)
def test_parts_add_up_to_the_site(scorer):
    subject = subject_of(ATTENTION["phi3"][0]())
    found = scorer.measure(subject)
    parts = [sum(each.values()) if each else None for each in found.slices]
    assert [part is not None for part in parts] == [
        site.role.part in ("qkv", "gate_up") for site in subject.sites
    ]
    for value, part in zip(found.values, parts, strict=True):
        assert part is None or part == pytest.approx(value, rel=1e-6)


def square_gpt_oss():
    """Experts of (d_in, d_out), both 32: only the module's own word tells which is which."""
    return made(
        "GptOss", "CausalLM", **{**GROUPED, "intermediate_size": 16}, head_dim=8,
        num_local_experts=4, num_experts_per_tok=2,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("make", "gate", "up"),
    [
        (lambda: fresh("mixtral"), np.s_[:, :48], np.s_[:, 48:]),
        (square_gpt_oss, np.s_[..., ::2], np.s_[..., 1::2]),
    ],
    ids=["mixtral", "gpt_oss"],
)
def test_parts_of_experts_are_those_of_their_gradients(make, gate, up):
    subject = subject_of(make(), kind="expert")
    found = Gradient().measure(subject)
    number, site = next((n, s) for n, s in enumerate(subject.sites) if s.role.part == "gate_up")
    weight = weight_of(subject.base.model, site).requires_grad_(True)
    scale = np.mean([row.num_scored for row in subject.rows]) ** -2 / len(subject.rows)
    wanted = {"gate": 0.0, "up": 0.0}
    for row in subject.rows:
        (g,) = torch.autograd.grad(loss_of(subject, row), weight)
        for name, part in (("gate", gate), ("up", up)):
            wanted[name] += float(g[part].double().square().sum()) * scale
    assert found.slices[number] == pytest.approx(wanted, rel=1e-4)


# Where nothing is said -----------------------------------------------------------------------


def test_a_fused_map_that_no_output_map_reads_has_no_parts():
    """JetMoE's attention ends in experts, whose input does not show."""
    model = made(
        "JetMoe", "CausalLM", hidden_size=32, num_hidden_layers=2, num_key_value_heads=2,
        kv_channels=8, num_local_experts=4, num_experts_per_tok=2, intermediate_size=48,
        vocab_size=64,
    )  # fmt: skip
    subject = subject_of(model)
    paths = [site.path for site in fused(subject, "kv")]
    subject = replace(subject, sites=tuple(fused(subject, "kv")))
    found = Gradient().measure(subject)
    assert found.slices == [None, None]
    assert (
        f"2 fused sites, first {paths[0]}: which outputs are which part does not show, so that "
        "there is one value for the whole."
    ) in found.notes


class Reading(torch.nn.Module):
    """What an attention module does with its fused output, replaced by something else."""

    def __init__(self, fused, output, mix):
        super().__init__()
        self.c_attn, self.c_proj, self.mix = fused, output, mix

    def forward(self, hidden, *_, **__):
        return self.c_proj(self.mix(self.c_attn(hidden))), None


def uniform_attention(y):
    """Values alone matter: outputs that could be keys and queries have no influence."""
    return y[..., 64:].mean(1, keepdim=True).repeat(1, y.shape[1], 1)


def gated_attention(y):
    """A fourth part scales the result, and cannot be told from values."""
    q, k, v, gate = y.split(24, dim=-1)
    return torch.nn.functional.scaled_dot_product_attention(q, k, v * gate)


def linear_attention(y):
    """Weights that are no softmax: in a text of one token queries and keys matter, too."""
    q, k, v = y.split(32, dim=-1)
    return (q @ k.mT) @ v


@pytest.mark.parametrize("mix", [uniform_attention, gated_attention, linear_attention])
def test_what_is_no_softmax_attention_has_no_parts(mix):
    model = fresh("gpt2")
    subject = subject_of(model, paths=["transformer.h.0.attn.c_attn"])
    attention = model.transformer.h[0].attn
    width = mix(torch.ones(1, 1, 96)).shape[-1]
    output = torch.nn.Linear(width, 32) if width != 32 else attention.c_proj
    model.transformer.h[0].attn = Reading(attention.c_attn, output, mix)
    assert not parts_found(subject)


def test_a_gate_without_activation_has_no_parts():
    model = ATTENTION["phi3"][0]()
    subject = subject_of(model, paths=["model.layers.0.mlp.gate_up_proj"])
    assert parts_found(subject)
    model.model.layers[0].mlp.activation_fn = torch.nn.Identity()
    assert not parts_found(subject)


def test_roles_that_do_not_fit_what_is_found_have_no_parts():
    subject = subject_of(fresh("gpt2"))
    site = subject.sites[0]
    assert site.role == Role.parse("attention.qkv")
    other = replace(site, role=Role.parse("attention.kv"))
    assert not parts_found(replace(subject, sites=(other,)))


def test_finding_parts_leaves_the_base_as_it_was():
    from test_capture import state_of

    model = ATTENTION["phi3"][0]()
    subject = subject_of(model)
    model.train()
    before = state_of(model)
    Slices(subject)
    assert state_of(model) == before
