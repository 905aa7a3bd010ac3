"""Roles, against what is known of each architecture by hand."""

from collections import Counter

import pytest
from torch import nn
from transformers import (
    AlbertConfig,
    BartConfig,
    BertConfig,
    BloomConfig,
    DeepseekV3Config,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    JambaConfig,
    LlamaConfig,
    LongformerConfig,
    MambaConfig,
    MistralConfig,
    MixtralConfig,
    OPTConfig,
    Phi3Config,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    SwitchTransformersConfig,
    T5Config,
)

from loratlas.anatomy.sites import Anatomy

SMALL = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def roles(anatomy: Anatomy) -> dict[str, str]:
    return {site.path: str(site.role) for site in anatomy.sites}


def block(anatomy: Anatomy, prefix: str) -> dict[str, tuple[str, int, int]]:
    """Return the sites under a prefix: role and shape by the rest of their path."""
    return {
        site.path.removeprefix(prefix): (str(site.role), site.d_in, site.d_out)
        for site in anatomy.sites
        if site.path.startswith(prefix)
    }


def per_rank(anatomy: Anatomy, family: str) -> int:
    return sum(s.parameters_per_rank for s in anatomy.sites if s.role.family == family)


def test_gpt2_medium(read_config):
    config = GPT2Config(n_embd=1024, n_layer=24, n_head=16, architectures=["GPT2LMHeadModel"])
    anatomy = read_config(config.to_dict())

    for layer in range(24):
        assert block(anatomy, f"transformer.h.{layer}.") == {
            "attn.c_attn": ("attention.qkv", 1024, 3072),
            "attn.c_proj": ("attention.o", 1024, 1024),
            "mlp.c_fc": ("feed_forward.up", 1024, 4096),
            "mlp.c_proj": ("feed_forward.down", 4096, 1024),
        }
    assert anatomy.stacks == {"decoder": 24}
    assert {s.kind for s in anatomy.sites if s.in_block} == {"conv1d"}
    assert per_rank(anatomy, "attention") == 24 * (1024 + 3072 + 1024 + 1024)  # 147,456
    assert per_rank(anatomy, "feed_forward") == 24 * 2 * (1024 + 4096)
    # The published size of the model; the head is the token table and counts once.
    assert anatomy.num_parameters == 354_823_168
    assert anatomy.tied_head
    assert [s.path for s in anatomy.sites if not s.in_block] == [
        "transformer.wte",
        "transformer.wpe",
        "lm_head",
    ]
    assert [site.layer for site in anatomy.sites[2:-1]] == [i for i in range(24) for _ in "abcd"]


def test_llama_8b(read_config):
    config = LlamaConfig(
        vocab_size=128_256,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        tie_word_embeddings=False,
    )
    anatomy = read_config(config.to_dict())

    assert block(anatomy, "model.layers.31.") == {
        "self_attn.q_proj": ("attention.q", 4096, 4096),
        "self_attn.k_proj": ("attention.k", 4096, 1024),
        "self_attn.v_proj": ("attention.v", 4096, 1024),
        "self_attn.o_proj": ("attention.o", 4096, 4096),
        "mlp.gate_proj": ("feed_forward.gate", 4096, 14_336),
        "mlp.up_proj": ("feed_forward.up", 4096, 14_336),
        "mlp.down_proj": ("feed_forward.down", 14_336, 4096),
    }
    assert anatomy.num_parameters == 8_030_261_248
    assert not anatomy.tied_head
    # The two figures that the Tinker cookbook gives for LoRA parameters per rank.
    assert per_rank(anatomy, "attention") == 851_968
    assert per_rank(anatomy, "feed_forward") == 1_769_472


GATED = {"attention.q", "attention.k", "attention.v", "attention.o"} | {
    "feed_forward.gate",
    "feed_forward.up",
    "feed_forward.down",
}


@pytest.mark.parametrize("config_class", [LlamaConfig, Qwen2Config, Qwen3Config, MistralConfig])
def test_gated_decoders_with_grouped_queries(read_config, config_class):
    config = config_class(**SMALL, num_key_value_heads=2, head_dim=16, tie_word_embeddings=True)
    anatomy = read_config(config.to_dict())

    shapes = {str(s.role): (s.d_in, s.d_out) for s in anatomy.sites if s.in_block}
    assert set(shapes) == GATED
    assert shapes["attention.q"] == (32, 64)
    assert shapes["attention.k"] == shapes["attention.v"] == (32, 32)
    assert shapes["attention.o"] == (64, 32)
    assert len(anatomy.sites) == 2 * 7 + 2
    assert anatomy.tied_head
    assert roles(anatomy)["lm_head"] == "head"


def test_norms_of_query_and_key_are_no_sites(read_config):
    anatomy = read_config(Qwen3Config(**SMALL, num_key_value_heads=4, head_dim=8).to_dict())
    assert not [s.path for s in anatomy.sites if "norm" in s.path]
    assert roles(anatomy)["model.layers.0.self_attn.q_proj"] == "attention.q"


def test_bert_tells_its_two_output_dense_apart(read_config):
    config = BertConfig(**SMALL, architectures=["BertForMaskedLM"])
    anatomy = read_config(config.to_dict())

    assert block(anatomy, "bert.encoder.layer.1.") == {
        "attention.self.query": ("attention.q", 32, 32),
        "attention.self.key": ("attention.k", 32, 32),
        "attention.self.value": ("attention.v", 32, 32),
        "attention.output.dense": ("attention.o", 32, 32),
        "intermediate.dense": ("feed_forward.up", 32, 48),
        "output.dense": ("feed_forward.down", 48, 32),
    }
    assert anatomy.stacks == {"encoder": 2}
    transform = anatomy.by_path["cls.predictions.transform.dense"]
    assert (str(transform.role), transform.layer, transform.stack) == ("other", None, None)
    assert transform.reason == "outside the blocks"
    assert roles(anatomy)["cls.predictions.decoder"] == "head"
    tables = [s for s in anatomy.sites if s.kind == "embedding"]
    assert [(s.d_in, s.d_out) for s in tables] == [(99, 32), (512, 32), (2, 32)]
    assert {str(s.role) for s in tables} == {"embedding"}


def test_bert_as_decoder_is_a_decoder(read_config):
    config = BertConfig(**SMALL, is_decoder=True, architectures=["BertLMHeadModel"])
    assert read_config(config.to_dict()).stacks == {"decoder": 2}


def test_body_without_head(read_config):
    bert = read_config(BertConfig(**SMALL, architectures=["BertModel"]).to_dict())
    assert bert.stacks == {"encoder": 2}
    assert bert.by_path["pooler.dense"].reason == "outside the blocks"
    assert not bert.tied_head
    llama = read_config(LlamaConfig(**SMALL, architectures=["LlamaModel"]).to_dict())
    assert llama.stacks == {"decoder": 2}
    assert roles(llama)["layers.1.mlp.down_proj"] == "feed_forward.down"


@pytest.mark.parametrize(
    ("projection", "expected"),
    [("relu", {"wi": "up", "wo": "down"}), ("gated-gelu", {"wi_0": "gate", "wi_1": "up"})],
)
def test_t5_has_two_stacks_and_cross_attention(read_config, projection, expected):
    config = T5Config(
        vocab_size=99,
        d_model=32,
        d_kv=16,
        d_ff=48,
        num_layers=2,
        num_decoder_layers=3,
        num_heads=4,
        feed_forward_proj=projection,
    )
    anatomy = read_config(config.to_dict())

    assert anatomy.architecture == "T5ForConditionalGeneration"
    assert anatomy.stacks == {"encoder": 2, "decoder": 3}
    assert anatomy.num_layers == 5
    for layer in range(3):
        found = block(anatomy, f"decoder.block.{layer}.layer.")
        assert found["0.SelfAttention.q"] == ("attention.q", 32, 64)
        assert found["0.SelfAttention.o"] == ("attention.o", 64, 32)
        cross = {part: found[f"1.EncDecAttention.{part}"] for part in "qkvo"}
        assert {part: role for part, (role, _, _) in cross.items()} == {
            part: f"cross_attention.{part}" for part in "qkvo"
        }
        for name, part in expected.items():
            assert found[f"2.DenseReluDense.{name}"][0] == f"feed_forward.{part}"
    encoder = Counter(s.role.family for s in anatomy.sites if s.stack == "encoder")
    assert encoder["cross_attention"] == 0
    assert encoder["attention"] == 2 * 4
    bias = anatomy.by_path["decoder.block.0.layer.0.SelfAttention.relative_attention_bias"]
    assert (str(bias.role), bias.layer) == ("embedding", 0)


def test_bart_cross_attention(read_config):
    config = BartConfig(
        vocab_size=99,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
    )
    found = roles(read_config(config.to_dict()))
    assert found["model.decoder.layers.0.self_attn.k_proj"] == "attention.k"
    assert found["model.decoder.layers.0.encoder_attn.q_proj"] == "cross_attention.q"
    assert found["model.decoder.layers.1.encoder_attn.k_proj"] == "cross_attention.k"
    assert found["model.decoder.layers.1.encoder_attn.out_proj"] == "cross_attention.o"
    assert found["model.encoder.layers.1.fc1"] == "feed_forward.up"


def test_fused_projections(read_config):
    phi = read_config(Phi3Config(**SMALL, pad_token_id=0).to_dict())
    assert block(phi, "model.layers.1.") == {
        "self_attn.o_proj": ("attention.o", 32, 32),
        "self_attn.qkv_proj": ("attention.qkv", 32, 96),
        "mlp.gate_up_proj": ("feed_forward.gate_up", 32, 96),
        "mlp.down_proj": ("feed_forward.down", 48, 32),
    }


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (GPTNeoXConfig(**SMALL), ["qkv", "o", "up", "down"]),  # parallel attention and MLP
        (
            BloomConfig(vocab_size=99, hidden_size=32, n_layer=2, n_head=4),
            ["qkv", "o", "up", "down"],
        ),
        (
            OPTConfig(
                vocab_size=99,
                hidden_size=32,
                ffn_dim=48,
                num_hidden_layers=2,
                num_attention_heads=4,
                word_embed_proj_dim=16,
            ),
            ["k", "v", "q", "o", "up", "down"],
        ),
    ],
    ids=["gpt_neox", "bloom", "opt"],
)
def test_plain_decoders(read_config, config, expected):
    anatomy = read_config(config.to_dict())
    assert [s.role.part for s in anatomy.sites if s.layer == 1] == expected


def test_shared_blocks_are_listed_once(read_config):
    config = AlbertConfig(**SMALL, embedding_size=16, architectures=["AlbertForMaskedLM"])
    anatomy = read_config(config.to_dict())
    assert [s.role.part for s in anatomy.sites if s.in_block] == ["q", "k", "v", "o", "up", "down"]
    assert len({s.path for s in anatomy.sites}) == len(anatomy.sites)


def test_mixtral_experts_are_three_dimensional_parameters(read_config):
    config = MixtralConfig(**SMALL, num_key_value_heads=2, num_local_experts=4)
    anatomy = read_config(config.to_dict())
    gate_up = anatomy.by_path["model.layers.1.mlp.experts.gate_up_proj"]
    assert (str(gate_up.role), gate_up.kind) == ("expert.gate_up", "expert")
    assert (gate_up.num_experts, gate_up.d_in, gate_up.d_out) == (4, 32, 96)
    assert gate_up.parameters_per_rank == 4 * (32 + 96)
    found = roles(anatomy)
    assert found["model.layers.1.mlp.experts.down_proj"] == "expert.down"
    assert found["model.layers.1.mlp.gate.weight"] == "router"


def test_shared_experts_stand_beside_routed_ones(read_config):
    config = Qwen2MoeConfig(
        **SMALL,
        num_key_value_heads=2,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=24,
        shared_expert_intermediate_size=40,
    )
    found = roles(read_config(config.to_dict()))
    mlp = {p.removeprefix("model.layers.0.mlp."): r for p, r in found.items() if ".0.mlp." in p}
    assert mlp == {
        "gate.weight": "router",
        "experts.gate_up_proj": "expert.gate_up",
        "experts.down_proj": "expert.down",
        "shared_expert.gate_proj": "shared_expert.gate",
        "shared_expert.up_proj": "shared_expert.up",
        "shared_expert.down_proj": "shared_expert.down",
        "shared_expert_gate": "router",  # one number per token: how much it counts
    }


def test_latent_attention(read_config):
    config = DeepseekV3Config(
        **SMALL,
        num_key_value_heads=4,
        q_lora_rank=12,
        kv_lora_rank=10,
        qk_rope_head_dim=4,
        qk_nope_head_dim=8,
        v_head_dim=6,
        first_k_dense_replace=1,
        n_routed_experts=8,
        n_group=2,
        topk_group=1,
        num_experts_per_tok=2,
        moe_intermediate_size=24,
    )
    anatomy = read_config(config.to_dict())
    assert block(anatomy, "model.layers.0.self_attn.") == {
        "q_a_proj": ("attention.q_down", 32, 12),
        "q_b_proj": ("attention.q_up", 12, 48),
        "kv_a_proj_with_mqa": ("attention.kv_down", 32, 14),
        "kv_b_proj": ("attention.kv_up", 10, 56),
        "o_proj": ("attention.o", 24, 32),
    }
    assert roles(anatomy)["model.layers.0.mlp.down_proj"] == "feed_forward.down"
    assert roles(anatomy)["model.layers.1.mlp.experts.down_proj"] == "expert.down"
    assert roles(anatomy)["model.layers.1.mlp.shared_experts.down_proj"] == "shared_expert.down"


def test_softcapped_scores_are_attention(read_config):
    config = Gemma2Config(**SMALL, num_key_value_heads=2, head_dim=8, query_pre_attn_scalar=8)
    anatomy = read_config(config.to_dict())
    assert {str(s.role) for s in anatomy.sites if s.in_block} == GATED


def test_forward_pass_that_looks_at_its_mask(read_config):
    config = LongformerConfig(**SMALL, attention_window=4, architectures=["LongformerForMaskedLM"])
    anatomy = read_config(config.to_dict())
    used = [s.role.part for s in anatomy.sites if s.layer == 1 and s.reason is None]
    assert used == ["q", "k", "v", "o", "up", "down"]
    unused = {s.path.split(".")[-1] for s in anatomy.sites if s.layer == 1 and s.reason}
    assert unused == {"query_global", "key_global", "value_global"}


def test_experts_that_are_modules_all_have_the_role_of_the_one_that_ran(read_config):
    config = SwitchTransformersConfig(
        vocab_size=99,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_heads=4,
        num_layers=2,
        num_decoder_layers=2,
        num_sparse_encoder_layers=1,
        num_sparse_decoder_layers=1,
        num_experts=4,
    )
    found = Counter(roles(read_config(config.to_dict())).values())
    assert found["expert.up"] == found["expert.down"] == 2 * 4
    assert found["router"] == 2
    assert found["other"] == 0


def test_state_space_mixers_are_recurrent(read_config):
    config = MambaConfig(vocab_size=99, hidden_size=32, state_size=4, num_hidden_layers=2)
    anatomy = read_config(config.to_dict())
    assert {p: r for p, (r, _, _) in block(anatomy, "backbone.layers.1.mixer.").items()} == {
        "in_proj": "recurrent.in",
        "x_proj": "recurrent.inner",
        "dt_proj": "recurrent.inner",
        "out_proj": "recurrent.out",
    }
    assert anatomy.stacks == {"decoder": 2}


def test_hybrid_of_attention_and_recurrence(read_config):
    config = JambaConfig(
        **{**SMALL, "num_hidden_layers": 4},
        num_key_value_heads=2,
        attn_layer_period=4,
        attn_layer_offset=2,
        expert_layer_period=2,
        expert_layer_offset=1,
        num_experts=4,
        mamba_d_state=4,
        mamba_dt_rank=4,
        use_mamba_kernels=False,
    )
    anatomy = read_config(config.to_dict())
    families = [
        sorted({str(s.role.family) for s in anatomy.sites if s.layer == layer})
        for layer in range(4)
    ]
    assert families == [
        ["feed_forward", "recurrent"],
        ["expert", "recurrent", "router"],
        ["attention", "feed_forward"],
        ["expert", "recurrent", "router"],
    ]


def test_every_map_and_table_is_listed_once_in_model_order(read_config):
    from transformers import T5ForConditionalGeneration

    config = T5Config(vocab_size=99, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
    model = T5ForConditionalGeneration(config)
    expected = [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Embedding)
    ]
    anatomy = read_config(config.to_dict())
    assert [site.path for site in anatomy.sites] == expected
    assert anatomy.num_parameters == sum(p.numel() for p in model.parameters())
