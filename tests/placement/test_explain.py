"""Pitfalls of existing LoRA configurations: when each is told, and that it is what PEFT does."""

import time

import pytest

import anatomies
from loratlas.placement.explain import explain

GPT2 = anatomies.gpt2(width=32, layers=4, vocabulary=64)
LLAMA = anatomies.llama(layers=4)
MIXTRAL = anatomies.mixtral()
QWEN3_MOE = anatomies.qwen3_moe()

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")


def told(code, anatomy, **config):
    """Return the one message with this code."""
    found = [each for each in explain(config, anatomy).lints if each.code == code]
    assert len(found) == 1, found
    return found[0].message


def codes(anatomy, **config):
    return [each.code for each in explain(config, anatomy).lints]


def hit(anatomy, **config):
    return [a.site.path for a in explain(config, anatomy).placement.adapters]


def test_nothing_is_said_about_a_plain_configuration():
    assert codes(LLAMA, target_modules=["q_proj", "v_proj"], r=4, lora_alpha=8) == []
    assert codes(LLAMA, target_modules=None) == []


# The numbers are those of the list of pitfalls that loratlas is held against.


def test_1_a_name_in_two_blocks():
    message = told("ambiguous-name", GPT2, target_modules=["c_attn", "c_proj"])
    assert message.startswith("the target c_proj stands in attention and feed_forward: attention.o")


def test_2_a_dead_target_with_the_nearest_name():
    message = told("dead-target", LLAMA, target_modules=["q_proj", "val_proj"])
    assert message == (
        "1 target hit nothing: val_proj is no linear map or embedding of llama "
        "(did you mean v_proj?)"
    )
    both = {"target_modules": ["q_proj"], "exclude_modules": ["o_prj"]}
    assert "o_prj leaves nothing out (did you mean o_proj?)" in told("dead-exclude", LLAMA, **both)


def test_2_a_target_that_other_fields_take_away():
    config = {"target_modules": ["q_proj", "k_proj"], "exclude_modules": ["k_proj"]}
    assert "k_proj is left out by layers_to_transform, exclude" in told(
        "dead-target", LLAMA, **config
    )


def test_1_a_layer_that_stands_in_both_stacks():
    t5 = anatomies.t5()
    entry = "block.0.layer.0.SelfAttention.q"
    assert told("both-stacks", t5, target_modules=[entry, "wi"]) == (
        f"the target {entry} counts the layers of each stack by itself: 1 in the encoder, such as "
        f"encoder.{entry}; 1 in the decoder, such as decoder.{entry}"
    )
    chosen = told("both-stacks", t5, target_modules=["q"], layers_to_transform=[0])
    assert chosen.startswith("layers_to_transform counts the layers of each stack by itself: 1 in")
    assert "2 in the decoder" in chosen
    assert "both-stacks" not in codes(t5, target_modules=["q"])
    assert "both-stacks" not in codes(t5, target_modules=[f"encoder.{entry}"])
    assert "both-stacks" not in codes(LLAMA, target_modules=["q_proj"], layers_to_transform=[0])


def test_2_many_dead_targets_are_one_short_message():
    message = told(
        "dead-target", LLAMA, target_modules=["q_proj", *(f"x{n}" for n in range(10_000))]
    )
    assert message.startswith("10000 targets hit nothing: x0, x1, x2, x3, x4 is no linear map or")
    assert message.endswith("; and 9995 more")
    assert message.count("its roles are") == 1


def test_2_expert_parameters_are_no_modules():
    message = told("dead-target", MIXTRAL, target_modules=["q_proj", "gate_up_proj"])
    assert "gate_up_proj is a parameter, which target_parameters reaches" in message


def test_3_layers_that_are_not_there():
    config = {"target_modules": ["q_proj"], "layers_to_transform": [3, 7, 99, -1]}
    assert told("layer-out-of-range", LLAMA, **config) == (
        "layers_to_transform: 7, 99, -1 are not there and dropped; the targets stand in layers "
        "0..3, and PEFT does not count from the end"
    )
    assert hit(LLAMA, **config) == ["model.layers.3.self_attn.q_proj"]
    alone = explain({"target_modules": ["q_proj"], "layers_to_transform": -1}, LLAMA)
    assert alone.refusal == (
        "it hits nothing: layers_to_transform is -1, and the targets stand in layers 0..3"
    )


def test_3_layers_that_do_not_hold():
    empty = {"target_modules": ["q_proj"], "layers_to_transform": []}
    assert told("layers-ignored", LLAMA, **empty).endswith("means every layer, not none")
    assert len(hit(LLAMA, **empty)) == 4
    full = "model.layers.2.self_attn.q_proj"
    config = {"target_modules": ["v_proj", full, "lm_head"], "layers_to_transform": [0]}
    message = told("layers-ignored", LLAMA, **config)
    assert message.startswith(f"layers_to_transform does not hold for 2 sites, such as {full}")
    experts = {"target_parameters": ["experts.down_proj"], "layers_to_transform": [0]}
    assert "layers-ignored" in codes(MIXTRAL, target_modules=["q_proj"], **experts)


def test_4_one_text_of_targets_with_layers():
    explanation = explain({"target_modules": "all-linear", "layers_to_transform": [0]}, LLAMA)
    assert explanation.lints[0].code == "peft-refuses"
    assert "layers_to_transform cannot be used when target_modules is one text" in str(
        explanation.refusal
    )
    assert explanation.placement.adapters == ()


def test_4_a_model_without_a_prefix_before_its_layers():
    bare = [
        anatomies.site(
            f"layers.{n}.self_attn.q_proj", "attention.q", 8, 8, stack="decoder", layer=n
        )
        for n in range(2)
    ]
    anatomy = anatomies.anatomy("llama", {"decoder": 2}, bare, 1_000, tied_head=False)
    config = {"target_modules": ["q_proj"], "layers_to_transform": [0]}
    assert explain(config, anatomy).refusal == (
        "it hits nothing: layers_to_transform takes the number behind two names, as in "
        "model.layers.3, for the layer, and finds none in layers.0.self_attn.q_proj"
    )
    config["layers_pattern"] = "layers"
    assert hit(anatomy, **config) == ["layers.0.self_attn.q_proj"]


def test_5_the_order_of_patterns():
    config = {
        "target_modules": ["q_proj"],
        "rank_pattern": {"q_proj": 8, "layers.0.self_attn.q_proj": 16, "k_proj": 3},
    }
    assert told("pattern-order", LLAMA, **config) == (
        "rank_pattern: the first match decides, so model.layers.0.self_attn.q_proj gets 8 from "
        "'q_proj' and not 16 from 'layers.0.self_attn.q_proj', which comes later; write exact paths"
    )
    assert told("dead-pattern", LLAMA, **config).startswith("rank_pattern: k_proj matches nothing")
    assert {a.rank for a in explain(config, LLAMA).placement.adapters} == {8}


def test_6_a_scale_that_varies_and_a_server_that_does_not_see_it():
    config = {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"v_proj": 2}}
    config |= {"r": 8, "lora_alpha": 8}
    assert told("scale-varies", LLAMA, **config).startswith("the scale differs between sites, from")
    assert "have scale 4; a server that reads one global alpha and rank" in told(
        "global-scale", LLAMA, **config
    )


def test_7_all_linear_on_a_mixture_of_experts():
    config = {"target_modules": "all-linear", "r": 4, "lora_alpha": 4}
    message = told("rank-doubled", MIXTRAL, **config)
    assert message.startswith(
        "PEFT gives gate_up_proj, which holds two maps of each expert, rank 8"
    )
    assert told("router-adapted", MIXTRAL, **config).startswith("2 sites: the router is adapted")
    assert "global-scale" not in codes(MIXTRAL, **config)


def test_7_older_names_of_experts_leave_dense_blocks_out():
    message = told("experts-renamed", QWEN3_MOE, target_modules=["down_proj", "q_proj"])
    assert "adapts the parameters down_proj of every layer; 1 module of that name" in message
    assert "model.layers.0.mlp.down_proj" in message
    half = explain({"target_modules": ["up_proj"]}, QWEN3_MOE)
    assert "up_proj cannot be targeted without gate_proj" in str(half.refusal)


def test_7_an_expression_is_widened_to_every_layer():
    config = {"target_modules": r".*layers\.0\..*q_proj"}
    message = told("expression-widened", MIXTRAL, **config)
    assert "keeps only the last names of what it hits (q_proj) and adapts those" in message
    assert len(hit(MIXTRAL, **config)) == 2
    assert len(hit(LLAMA, **config)) == 1


def test_8_a_pattern_for_experts_that_peft_denies():
    config = {
        "target_modules": ["q_proj"],
        "target_parameters": ["experts.down_proj"],
        "rank_pattern": {"experts.down_proj": 3},
    }
    assert told("pattern-denied", MIXTRAL, **config) == (
        "rank_pattern: PEFT warns that experts.down_proj matches no module and is ignored; it "
        "matches parameters, and takes effect"
    )


def test_12_checkpointing_brings_the_frozen_layers_back():
    config = {"target_modules": ["q_proj"], "layers_to_transform": [2, 3]}
    found = explain(config, LLAMA, checkpointing=True).lints
    assert [each.code for each in found] == ["frozen-prefix-lost"]
    assert found[0].message.startswith("2 layers lie below the lowest adapter")


def test_13_what_peft_refuses():
    experts = {"target_modules": [], "target_parameters": ["experts.down_proj"]}
    (refused,) = explain({**experts, "lora_dropout": 0.1}, MIXTRAL).lints
    assert refused.code == "expert-dropout"
    assert refused.message.endswith("take no dropout, and lora_dropout is 0.1")
    zero = explain({"target_modules": ["q_proj"], "rank_pattern": {"0.*q_proj": 0}}, LLAMA)
    assert "the rank of model.layers.0.self_attn.q_proj is 0" in str(zero.refusal)


def test_13_suffixes_that_peft_saves_in_place_of_paths():
    deep = anatomies.gpt2(width=32, layers=12, vocabulary=64)
    paths = [site.path for site in deep.sites if str(site.role).startswith("attention")]
    assert told("suffixes-saved", deep, target_modules=paths) == (
        "PEFT replaces the 24 targets by 2 suffixes, such as attn.c_proj, and saves those; on a "
        "model with other layers they hit other sites"
    )


def test_what_is_no_map_is_refused():
    held = explain({"target_modules": ["self_attn"]}, LLAMA)
    assert "hits model.layers.0.self_attn, which is no linear map or embedding" in str(held.refusal)
    both = {"target_modules": ["q_proj"], "target_parameters": ["q_proj.weight"]}
    assert "is hit both by target_modules and" in str(explain(both, LLAMA).refusal)
    unknown = anatomies.anatomy("new", {"decoder": 4}, LLAMA.sites, 1_000, tied_head=False)
    assert "PEFT has no default for model_type new" in str(explain({"r": 8}, unknown).refusal)


def test_more_than_adapters_is_trained():
    config = {"target_modules": ["q_proj"], "bias": "all", "modules_to_save": ["embed_tokens"]}
    assert told("more-is-trained", LLAMA, **config).startswith(
        "bias: all; modules_to_save: embed_tokens: more is trained"
    )


def test_each_target_with_its_sites():
    config = {"target_modules": ["c_proj", "h.0.attn.c_attn", "xx"]}
    explanation = explain(config, GPT2)
    assert {entry: len(sites) for entry, sites in explanation.targets.items()} == {
        "c_proj": 8,
        "h.0.attn.c_attn": 1,
        "xx": 0,
    }
    assert explanation.targets_json()[1] == {
        "target": "h.0.attn.c_attn",
        "paths": ["transformer.h.0.attn.c_attn"],
    }


def test_ten_thousand_targets_are_answered_in_seconds():
    names = [f"layers.{n}.self_attn.q_projection" for n in range(10_000)]
    start = time.process_time()
    explanation = explain({"target_modules": [*names, "v_proj"]}, LLAMA)
    assert time.process_time() - start < 10
    message = next(each.message for each in explanation.lints if each.code == "dead-target")
    assert message.startswith("10000 targets hit nothing: layers.0.self_attn.q_projection is no")
    assert message.endswith("and 9995 more")
    assert len(message) < 2_000
