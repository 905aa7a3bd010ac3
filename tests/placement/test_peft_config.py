"""Placements as PEFT configurations, held against what PEFT wraps in real (tiny) models."""

import json
import re

import pytest

import anatomies
from loratlas.errors import NotYetError, PlacementError
from loratlas.placement.explain import read_peft
from loratlas.placement.peft_config import adapter_config, to_peft
from loratlas.placement.placement import Placement, place
from tiny_models import gpt2, llama, mixtral, qwen3_moe, t5

GPT2 = anatomies.gpt2(width=32, layers=3, vocabulary=64)
DEEP = anatomies.gpt2(width=32, layers=12, vocabulary=64)
LLAMA = anatomies.llama(layers=3)
T5 = anatomies.t5()
MIXTRAL = anatomies.mixtral()
QWEN3_MOE = anatomies.qwen3_moe()
NESTED = anatomies.nested()

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")


def nested():
    """A model whose paths are those of `anatomies.nested`."""
    from torch import nn

    def block(*names):
        linears = nn.ModuleDict({name: nn.Linear(8, 8, bias=False) for name in names})
        return nn.ModuleDict({"block": nn.ModuleList([linears])})

    model = block("q")
    model["x"] = block("q", "v")
    return model


def wrapped(model):
    """Return path → (rank, scale) of everything that PEFT wrapped."""
    import torch
    from peft.tuners.lora import LoraLayer
    from peft.tuners.lora.layer import ParamWrapper

    found = {}
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            path = name.removeprefix("base_model.model.").replace(".base_layer", "")
            if isinstance(module, ParamWrapper) and not isinstance(
                module.get_base_layer(), torch.nn.Linear
            ):
                path = f"{path}.{module.parameter_name}"
            found[path] = (module.r["default"], module.scaling["default"])
    return found


def planned(placement):
    return {a.site.path: (a.rank, placement.scale(a)) for a in placement.adapters}


def check(model, placement, *, trainable=True):
    assert wrapped(model) == planned(placement)
    adapters = [p for name, p in model.named_parameters() if "lora_" in name]
    assert sum(p.numel() for p in adapters) == placement.trainable_parameters
    if trainable:
        assert model.get_nb_trainable_parameters()[0] == placement.trainable_parameters


def rank_options(rank, scaling="constant"):
    return {"rank": rank, "alpha": 3 * rank, "scaling": scaling}


CASES = {
    "gpt2, all": (gpt2, GPT2, "all", rank_options(4)),
    "gpt2, one block of many": (
        lambda: gpt2(12),
        DEEP,
        "names(h.1.attn.c_proj)",
        rank_options(4),
    ),
    "gpt2, above 20 sites": (
        lambda: gpt2(12),
        DEEP,
        "all - attention.o @ last(1)",
        rank_options(2),
    ),
    "gpt2, ranks by part": (gpt2, GPT2, "attention:3 + feed_forward @ last(1):5", rank_options(4)),
    "llama, grouped query": (llama, LLAMA, "attention.v | feed_forward.down", rank_options(8)),
    "llama, embedding and head": (llama, LLAMA, "embedding:2 + head:3", rank_options(4)),
    "llama, alpha/r": (llama, LLAMA, "attention:2 + feed_forward:7", rank_options(4, "alpha/r")),
    "llama, rslora": (llama, LLAMA, "attention:2 + feed_forward:7", rank_options(4, "rslora")),
    "t5, encoder only": (t5, T5, "attention.q @ encoder", rank_options(4)),
    "t5, ranks by stack": (
        t5,
        T5,
        "all @ encoder:2 + self_attention @ decoder:3 + cross_attention:5",
        rank_options(4),
    ),
    "mixtral, experts only": (mixtral, MIXTRAL, "expert", rank_options(2)),
    "mixtral, experts of one layer": (
        mixtral,
        MIXTRAL,
        "expert.down @ last(1) + attention:3",
        rank_options(2),
    ),
    "mixtral, one router": (mixtral, MIXTRAL, "router @ first(1)", rank_options(2)),
    "qwen3 moe, the dense block": (
        qwen3_moe,
        QWEN3_MOE,
        "dense_feed_forward.down:2 + attention.v:5",
        rank_options(2),
    ),
    "qwen3 moe, all": (qwen3_moe, QWEN3_MOE, "all | router", rank_options(3)),
    "nested, the short path": (nested, NESTED, "names(block.0.q) - all @ encoder", rank_options(4)),
    "nested, both paths": (
        nested,
        NESTED,
        "attention.q @ decoder:2 + attention.q @ encoder:3",
        rank_options(4),
    ),
    "nested, the long path": (nested, NESTED, "names(x.block.0.q)", rank_options(4)),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request):
    make, anatomy, rule, options = request.param
    return make, place(anatomy, rule, **options)


def test_peft_wraps_exactly_what_is_placed(case):
    from peft import get_peft_model

    make, placement = case
    check(get_peft_model(make(), to_peft(placement)), placement)


def test_saved_and_reloaded_it_is_still_exact(case, tmp_path):
    import torch
    from peft import PeftModel, get_peft_model, get_peft_model_state_dict

    make, placement = case
    model = get_peft_model(make(), to_peft(placement))
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    (tmp_path / "adapter_config.json").write_text(json.dumps(adapter_config(placement)))
    again = PeftModel.from_pretrained(make(), tmp_path)
    check(again, placement, trainable=False)
    before, after = (
        get_peft_model_state_dict(each, save_embedding_layers=False) for each in (model, again)
    )
    lora = [name for name in before if "lora_" in name]
    assert lora == [name for name in after if "lora_" in name]
    assert all(torch.equal(before[name], after[name]) for name in lora)


def test_peft_itself_shortens_long_lists_when_it_saves(tmp_path):
    """The reason for `adapter_config`; should PEFT stop doing this, it may become simpler."""
    from peft import get_peft_model

    placement = place(DEEP, "attention")
    get_peft_model(gpt2(12), to_peft(placement)).save_pretrained(tmp_path)
    theirs = json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"]
    ours = adapter_config(placement)["target_modules"]
    assert set(ours) == {adapter.site.path for adapter in placement.adapters}
    assert sorted(theirs) == ["attn.c_proj", "c_attn"]


def test_a_uniform_placement_needs_no_patterns():
    config = to_peft(place(GPT2, "attention", rank=4, alpha=8), dropout=0.1)
    assert (config.r, config.lora_alpha, config.lora_dropout) == (4, 8, 0.1)
    assert (config.rank_pattern, config.alpha_pattern) == ({}, {})
    assert (config.bias, config.task_type, config.use_rslora) == ("none", None, False)
    assert config.fan_in_fan_out
    assert config.target_modules == {
        f"transformer.h.{layer}.attn.{name}" for layer in range(3) for name in ("c_attn", "c_proj")
    }
    assert place(GPT2, "attention").to_peft().target_modules == config.target_modules


def test_patterns_are_anchored_and_escaped():
    config = to_peft(place(LLAMA, "attention:4 + head:2", rank=8, alpha=16))
    assert config.rank_pattern == {"^lm_head": 2}
    assert config.alpha_pattern == {"^lm_head": 4}
    deep = to_peft(place(LLAMA, "all:4 + names(embed_tokens):2"))
    assert list(deep.rank_pattern) == [r"^model\.embed_tokens"]


def test_a_path_that_ends_another_becomes_an_exact_expression():
    config = to_peft(place(NESTED, "attention.q @ decoder"))
    assert config.target_modules == r"block\.0\.q"
    assert re.fullmatch(config.target_modules, "x.block.0.q") is None


def test_the_written_configuration_is_plain_and_names_its_base():
    config = adapter_config(place(LLAMA, "head"), base_model="some/model", revision="main")
    assert json.loads(json.dumps(config)) == config
    assert config["base_model_name_or_path"] == "some/model"
    assert config["revision"] == "main"
    assert config["peft_type"] == "LORA"
    assert config["inference_mode"] is True
    assert config["target_modules"] == ["lm_head"]
    assert config["target_parameters"] is None


def test_what_peft_cannot_do_is_refused():
    with pytest.raises(PlacementError, match="PEFT refuses dropout on adapters of parameters"):
        to_peft(place(MIXTRAL, "expert"), dropout=0.1)
    everything = place(LLAMA, "all")
    with pytest.raises(PlacementError, match="there is nothing to adapt"):
        to_peft(everything - everything)


def test_an_expert_parameter_that_ends_another_is_refused():
    short, long = (
        anatomies.site(path, "expert.down", 8, 8, kind="expert", num_experts=2)
        for path in ("experts.down", "x.experts.down")
    )
    anatomy = anatomies.anatomy("twins", {"decoder": 1}, [short, long], 1_000, tied_head=False)
    with pytest.raises(PlacementError, match=r"PEFT cannot target experts\.down without x\."):
        to_peft(place(anatomy, "expert - names(x.experts.down)"))
    assert len(to_peft(place(anatomy, "expert")).target_parameters) == 2


def test_a_configuration_reads_back_as_the_placement(case, tmp_path):
    _, placement = case
    config = adapter_config(placement)
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    for source in (config, tmp_path, tmp_path / "adapter_config.json"):
        read = read_peft(source, placement.anatomy)
        assert planned(read) == planned(placement)
        assert read.digest == placement.digest


def test_a_configuration_with_suffixes_reads_as_peft_applies_it():
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["c_proj", "1.attn.c_attn"],
        rank_pattern={"c_proj": 2, "attn.c_proj": 3},
        alpha_pattern={r"h\.2\.attn\.c_proj": 5},
        fan_in_fan_out=True,
    )
    model = get_peft_model(gpt2(), config)
    read = read_peft(config.to_dict(), GPT2)
    assert planned(read) == wrapped(model)


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"target_modules": ["q_proj", "valu_proj"]}, PlacementError, "valu_proj is no linear map"),
        ({"target_modules": ["valu_proj"]}, PlacementError, "it hits nothing"),
        (
            {"target_modules": "all-linear", "layers_to_transform": [0]},
            PlacementError,
            "layers_to_transform cannot be used when target_modules is one text",
        ),
        ({"peft_type": "ADALORA"}, NotYetError, "of peft_type ADALORA is not read yet"),
        (
            {"target_modules": ["q_proj"], "layer_replication": [[0, 2]]},
            NotYetError,
            "a configuration with layer_replication is not read yet",
        ),
    ],
)
def test_a_configuration_that_is_not_read_is_told(config, error, message):
    with pytest.raises(error) as told:
        read_peft(config, LLAMA)
    assert message in str(told.value)


def test_what_mamba_kernels_read_directly_is_refused_before_peft_does():
    sites = [
        anatomies.site(f"backbone.layers.0.mixer.{name}", role, 8, 8, stack="decoder", layer=0)
        for name, role in (("in_proj", "recurrent.in_proj"), ("out_proj", "recurrent.out_proj"))
    ]
    mamba = anatomies.anatomy("mamba", {"decoder": 1}, sites, 1_000, tied_head=False)
    with pytest.raises(
        PlacementError, match=r"PEFT does not adapt backbone\.layers\.0\.mixer\.out"
    ):
        to_peft(place(mamba, "recurrent"))
    assert to_peft(place(mamba, "recurrent - names(out_proj)")).r == 8


def test_a_placement_read_back_equals_its_algebra():
    whole = place(LLAMA, "all", rank=4, alpha=8, scaling="alpha/r")
    read = read_peft(adapter_config(whole), LLAMA)
    assert isinstance(read, Placement)
    assert read == whole
