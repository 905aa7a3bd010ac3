"""What has no role: the reason is true, and towers stand apart from the language model."""

from collections import Counter

from transformers import (
    BartConfig,
    Gemma3nTextConfig,
    Inkling2TextConfig,
    Mamba2Config,
    Qwen2AudioConfig,
    T5Gemma2Config,
    XLNetConfig,
)

from loratlas.anatomy.read import read

SMALL = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


def reasons(anatomy, layer=1):
    return {
        site.path.split(f".{layer}.", 1)[1]: site.reason
        for site in anatomy.sites
        if site.layer == layer and site.reason
    }


def test_per_layer_inputs_and_parallel_residuals_of_gemma3n(read_config):
    config = Gemma3nTextConfig(
        **SMALL,
        num_kv_shared_layers=1,
        vocab_size_per_layer_input=99,
        hidden_size_per_layer_input=8,
        laurel_rank=4,
        layer_types=["sliding_attention", "full_attention"] * 2,
        activation_sparsity_pattern=[0.0] * 4,
        architectures=["Gemma3nForCausalLM"],
    )
    anatomy = read_config(config.to_dict())
    assert set(reasons(anatomy)) == {
        "altup.correction_coefs",
        "altup.modality_router",
        "altup.prediction_coefs",
        "laurel.linear_left",
        "laurel.linear_right",
        "per_layer_input_gate",
        "per_layer_projection",
    }
    found = reasons(anatomy)
    assert found["altup.correction_coefs"] == "scales or mixes the residual stream"
    assert found["laurel.linear_left"] == "a linear path of its own, without an activation"
    assert found["per_layer_input_gate"] == "gates a value that enters the block from outside"
    roles = Counter(str(s.role) for s in anatomy.sites if s.layer == 1 and not s.reason)
    assert roles == dict.fromkeys(
        [
            *(f"attention.{part}" for part in "qkvo"),
            *(f"feed_forward.{part}" for part in ("gate", "up", "down")),
        ],
        1,
    )


def test_attention_over_earlier_layers_is_no_attention_over_positions(read_config):
    config = Inkling2TextConfig(architectures=["Inkling2ForCausalLM"])
    config.num_hidden_layers = 4
    config.layer_types = config.layer_types[-4:]
    anatomy = read_config(config.to_dict())
    roles = Counter(str(s.role) for s in anatomy.sites if s.in_block)
    assert not [role for role in roles if role.startswith("cross_attention")]
    assert roles["attention.o"] == roles["attention.gate"] == roles["router"] == 4
    assert roles["expert.gate_up"] == roles["expert.down"] == 4
    assert reasons(anatomy)["self_attn.sink_proj"] == "shifts the attention scores"


def test_parameters_that_an_adapter_would_take_for_experts_are_listed_without_a_role(read_config):
    config = XLNetConfig(vocab_size=99, d_model=32, n_layer=2, n_head=4, d_inner=48)
    anatomy = read_config(config.to_dict())
    query = anatomy.by_path["transformer.layer.1.rel_attn.q"]
    assert (query.d_in, query.d_out, query.num_experts) == (32, 32, None)
    assert str(query.role) == "other"
    assert query.reason == (
        "attention.q, but its parameter has three dimensions and is no stack of matrices,"
        " as adapters need it"
    )


def test_merged_attention_is_self_attention_in_every_layer(read_config):
    part = {**SMALL, "query_pre_attn_scalar": 8, "num_hidden_layers": 2}
    config = T5Gemma2Config(encoder={"text_config": part}, decoder=part)
    anatomy = read_config(config.to_dict())
    decoder = [s for s in anatomy.sites if s.stack == "decoder"]
    roles = Counter(str(s.role) for s in decoder if s.role.family == "attention")
    assert roles == dict.fromkeys((f"attention.{part}" for part in "qkvo"), 2)


def test_cross_attention_of_a_decoder_of_its_own_is_cross_attention(read_config):
    config = BartConfig(
        vocab_size=99,
        d_model=32,
        decoder_layers=2,
        decoder_ffn_dim=48,
        decoder_attention_heads=4,
        architectures=["BartForCausalLM"],
    )
    anatomy = read_config(config.to_dict())
    assert anatomy.stacks == {"decoder": 2}
    found = Counter(str(s.role) for s in anatomy.sites if s.layer == 1)
    assert found == dict.fromkeys(
        [
            *(f"attention.{part}" for part in "qkvo"),
            *(f"cross_attention.{part}" for part in "qkvo"),
            "feed_forward.up",
            "feed_forward.down",
        ],
        1,
    )


def test_infinity_in_a_saved_configuration_is_read(write_config):
    config = Mamba2Config(
        vocab_size=99, hidden_size=32, num_hidden_layers=2, num_heads=4, head_dim=16, n_groups=1
    )
    folder = write_config({})
    config.architectures = ["Mamba2ForCausalLM"]
    config.save_pretrained(folder)
    assert "Infinity" in (folder / "config.json").read_text()
    roles = [str(s.role) for s in read(folder, cache=False).sites if s.in_block]
    assert roles == ["recurrent.in", "recurrent.out"] * 2


def test_towers_stand_apart_from_the_language_model(read_config):
    audio = {
        "d_model": 32,
        "encoder_layers": 2,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "num_mel_bins": 8,
        "max_source_positions": 16,
    }
    text = {**SMALL, "model_type": "qwen2"}
    config = Qwen2AudioConfig(audio_config=audio, text_config=text, audio_token_id=7)
    config.architectures = ["Qwen2AudioForConditionalGeneration"]
    anatomy = read_config(config.to_dict())
    assert anatomy.stacks == {"decoder": 4}
    tower = [s for s in anatomy.sites if "audio_tower" in s.path]
    # Two layers of q, k, v, out, fc1 and fc2, and the table of positions.
    assert len(tower) == 2 * 6 + 1
    assert {(str(s.role), s.stack, s.layer) for s in tower} == {("other", None, None)}
    assert {s.reason for s in tower} == {"audio tower: tokens do not pass through it"}
    assert all(not s.reason for s in anatomy.sites if s.in_block)
