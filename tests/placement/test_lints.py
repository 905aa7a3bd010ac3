"""Warnings: when each is given, when it is not, and what it says."""

import json

import pytest

import anatomies
from loratlas.placement.lints import lints
from loratlas.placement.match import match_parameters
from loratlas.placement.placement import LoraSpec, place
from loratlas.placement.rules import parse

GPT2 = anatomies.gpt2(width=8, layers=4, vocabulary=64)
LLAMA = anatomies.llama()
MIXTRAL = anatomies.mixtral()


def found(anatomy, rule, *, dropout=0.0, root=None, **options):
    parsed = parse(rule)
    placed = place(anatomy, parsed, root=root, **options)
    return lints(parsed, placed, anatomy, dropout=dropout, root=root)


def messages(code, *arguments, **options):
    return [lint.message for lint in found(*arguments, **options) if lint.code == code]


def test_nothing_is_said_about_a_plain_rule():
    assert found(LLAMA, "all") == []
    assert found(GPT2, "attention:4 + feed_forward:2") == []


def test_a_name_in_two_blocks_is_told_with_both_lists():
    (message,) = messages("ambiguous-name", GPT2, "names(c_attn, c_proj)")
    assert message == (
        "names(c_proj) stands in attention and feed_forward: "
        "attention.o (4), such as transformer.h.0.attn.c_proj; "
        "feed_forward.down (4), such as transformer.h.0.mlp.c_proj"
    )


@pytest.mark.parametrize(
    "rule",
    [
        "names(c_proj) & attention",
        "attention & names(c_proj)",
        "names(c_proj) - feed_forward",
        "feed_forward | names(c_proj) & attention",
        "names(attn.c_proj)",
        "attention - names(c_proj)",
    ],
)
def test_a_name_that_the_rule_narrows_to_one_block_is_not_ambiguous(rule):
    assert messages("ambiguous-name", GPT2, rule) == []


def test_a_name_that_takes_away_from_two_blocks_is_ambiguous():
    assert len(messages("ambiguous-name", GPT2, "all - names(c_proj)")) == 1
    assert len(messages("ambiguous-name", GPT2, "all - (all - names(c_proj))")) == 1


def test_self_and_cross_attention_are_one_word():
    assert messages("ambiguous-name", anatomies.t5(), "names(q, v)") == []


def test_a_layer_in_a_name_that_stands_in_both_stacks():
    (given,) = messages("both-stacks", anatomies.t5(), "names(block.1.layer.0.SelfAttention.q)")
    assert given.startswith(
        "names(block.1.layer.0.SelfAttention.q) counts the layers of each stack"
    )
    assert messages("both-stacks", anatomies.t5(), "names(q)") == []
    narrowed = "names(block.1.layer.0.SelfAttention.q) @ decoder"
    assert messages("both-stacks", anatomies.t5(), narrowed) == []


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("attention | expert", "selects nothing: expert: llama has no expert site; its roles are"),
        ("attention + expert:4", "selects nothing: expert: llama has no expert site"),
        ("all - attention.qkv", "llama has no attention.qkv; its attention roles are attention.q"),
        ("all | head & attention", "head & attention: head and attention share no site"),
        ("all | head @ first(1)", "head @ first(1): head has no site in that scope"),
    ],
)
def test_an_operand_that_selects_nothing_is_told(rule, message):
    (given,) = messages("dead-entry", LLAMA, rule)
    assert message in given


def test_asking_a_fused_model_for_a_piece_names_the_whole():
    (given,) = messages("dead-entry", GPT2, "attention.q | feed_forward")
    assert "gpt2 fuses q, k and v in attention.qkv" in given


def test_only_the_innermost_empty_operand_is_told():
    given = messages("dead-entry", LLAMA, "all | (expert @ first(1)) & attention")
    assert [message.split(":")[1] for message in given] == [" expert"]


def test_a_rank_above_the_smaller_dimension():
    (given,) = messages("rank-exceeds-dimension", LLAMA, "attention", rank=20)
    assert given.startswith("8 sites: the rank is above the smaller dimension, such as rank 20 for")
    assert "32 x 16 at model.layers.0.self_attn.k_proj" in given
    assert messages("rank-exceeds-dimension", LLAMA, "attention", rank=16) == []


def test_a_rank_that_matching_raised_above_a_dimension():
    rule = parse("attention.k @ first(1)")
    matched = match_parameters(rule, LLAMA, 48 * 40, lora=LoraSpec()).placement
    assert [lint.code for lint in lints(rule, matched, LLAMA)] == ["rank-exceeds-dimension"]


def test_scale_varies_when_alpha_is_fixed_and_ranks_differ():
    rule = "attention:16 + feed_forward:4"
    (given,) = messages("scale-varies", LLAMA, rule, alpha=32, scaling="alpha/r")
    assert given.startswith("the scale differs between sites, from 2 (rank 16) to 8 (rank 4)")
    assert len(messages("scale-varies", LLAMA, rule, scaling="rslora")) == 1
    assert messages("scale-varies", LLAMA, rule, rank=7, alpha=3, scaling="constant") == []
    assert messages("scale-varies", LLAMA, "all", scaling="alpha/r") == []


def test_an_adapted_router():
    (given,) = messages("router-adapted", MIXTRAL, "router")
    assert given.startswith("2 sites: the router is adapted")
    assert messages("router-adapted", MIXTRAL, "all") == []


def test_an_adapted_side_of_a_tied_head():
    assert len(messages("head-tied", GPT2, "head")) == 1
    assert len(messages("head-tied", GPT2, "embedding")) == 1
    assert messages("head-tied", GPT2, "all") == []
    assert messages("head-tied", LLAMA, "head") == []
    assert messages("head-tied", anatomies.t5(), "embedding @ encoder") == []


def test_dropout_beside_experts():
    (given,) = messages("expert-dropout", MIXTRAL, "all", dropout=0.1)
    assert given.startswith("4 sites: PEFT refuses dropout on adapters of parameters, such as")
    assert given.endswith("dropout is 0.1 and has to be 0")
    dense = "dense_feed_forward.down"
    assert len(messages("expert-dropout", anatomies.qwen3_moe(), dense, dropout=0.1)) == 1
    assert messages("expert-dropout", MIXTRAL, "attention", dropout=0.1) == []
    assert messages("expert-dropout", MIXTRAL, "all") == []


def test_alphas_of_a_file_that_the_study_does_not_use(tmp_path):
    saved = place(LLAMA, "attention:4", rank=4, alpha=8).to_json()
    (tmp_path / "saved.json").write_text(json.dumps(saved))
    rule = "file(saved.json)"
    assert messages("file-scale", LLAMA, rule, rank=16, alpha=32, root=tmp_path) == []
    (given,) = messages("file-scale", LLAMA, rule, rank=16, alpha=16, root=tmp_path)
    assert given.startswith('file("saved.json") gives 16 sites another alpha than this placement')
    assert "8 for 4 at model.layers.0.self_attn.q_proj" in given


def test_a_lint_is_plain_data():
    (lint,) = found(MIXTRAL, "router", rank=2)
    assert lint.to_json() == {"code": "router-adapted", "message": lint.message}


DENSE_FIRST = anatomies.qwen3_moe()


def test_a_word_that_reaches_only_some_layers():
    (given,) = messages("role-partial", DENSE_FIRST, "expert")
    assert given == (
        "expert reaches layers 1 of the decoder; layers 0 hold feed_forward.gate (1), "
        "feed_forward.up (1), feed_forward.down (1) instead"
    )
    (given,) = messages("role-partial", DENSE_FIRST, "feed_forward.gate | attention")
    assert given.startswith("feed_forward.gate reaches layers 0 of the decoder; layers 1 hold")


@pytest.mark.parametrize(
    "rule",
    [
        "feed_forward",
        "all",
        "all - expert",
        "expert | dense_feed_forward",
        "expert:2 + dense_feed_forward:4",
        "expert @ last(1)",
        "attention & all",
    ],
)
def test_a_word_whose_gap_is_filled_or_out_of_scope_is_not_told(rule):
    assert messages("role-partial", DENSE_FIRST, rule) == []


def test_a_stack_that_a_word_does_not_reach_is_no_gap():
    assert messages("role-partial", anatomies.t5(), "cross_attention") == []


def test_attention_in_some_layers_of_a_hybrid():
    sites = [
        anatomies.site("layers.0.in_proj", "recurrent.in_proj", 8, 8, stack="decoder", layer=0),
        anatomies.site("layers.1.q", "attention.q", 8, 8, stack="decoder", layer=1),
    ]
    hybrid = anatomies.anatomy("hybrid", {"decoder": 2}, sites, 1_000, tied_head=False)
    (given,) = messages("role-partial", hybrid, "attention")
    assert given.endswith("layers 0 hold recurrent.in_proj (1) instead")
    assert messages("role-partial", hybrid, "attention | recurrent") == []


def test_checkpointing_undoes_a_frozen_prefix():
    def told(rule, anatomy=LLAMA):
        parsed = parse(rule)
        found = lints(parsed, place(anatomy, parsed), anatomy, checkpointing=True)
        return [each.message for each in found if each.code == "frozen-prefix-lost"]

    (given,) = told("attention @ last(1)")
    assert given.startswith("3 layers lie below the lowest adapter")
    assert told("head")[0].startswith("4 layers")
    assert told("all") == []
    assert told("embedding | head") == []
    assert told("all @ decoder @ last(1)", anatomies.t5())[0].startswith("4 layers")
    assert messages("frozen-prefix-lost", LLAMA, "attention @ last(1)") == []


def test_two_towers_of_one_model(tmp_path):
    """Read from a real configuration: the reason by which a tower is known is the anatomy's."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    from loratlas.anatomy.read import read

    small = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**small, num_hidden_layers=2, image_size=8, patch_size=4),
        text_config=LlamaConfig(**small, num_hidden_layers=2, vocab_size=64),
        architectures=["LlavaForConditionalGeneration"],
    )
    config.save_pretrained(tmp_path)
    llava = read(tmp_path)
    (given,) = messages("mixed-towers", llava, "names(q_proj)")
    assert given.startswith("2 sites of the language model and 2 of another tower are adapted")
    assert messages("mixed-towers", llava, "attention") == []
