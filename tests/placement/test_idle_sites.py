"""Sites that tokens alone do not run: the anatomy says so, autograd agrees, a warning tells."""

import inspect
from dataclasses import replace

import pytest
import torch
import transformers
from peft import get_peft_model
from transformers import (
    BartConfig,
    GPT2Config,
    LongformerConfig,
    MambaConfig,
    T5Config,
    WhisperConfig,
)

import anatomies
from loratlas.anatomy.read import read
from loratlas.placement.lints import lints
from loratlas.placement.placement import Adapter, Placement, place
from loratlas.placement.rules import parse

_BART = {
    "vocab_size": 64,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
}
_WORDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
_BERT = {
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
CONFIGS = {
    "BartForCausalLM": BartConfig(**_BART, max_position_embeddings=32),
    "BartForConditionalGeneration": BartConfig(**_BART, max_position_embeddings=32),
    "WhisperForCausalLM": WhisperConfig(**_BART, **_WORDS, max_target_positions=32),
    "MambaForCausalLM": MambaConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=2, state_size=4
    ),
    "LongformerForMaskedLM": LongformerConfig(
        **_BERT, attention_window=[4, 4], max_position_embeddings=32
    ),
    "T5ForConditionalGeneration": T5Config(
        vocab_size=64, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, **_WORDS
    ),
    "GPT2LMHeadModel": GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=2, n_positions=32),
}
# What lies idle in each, written down by hand from the forward passes of transformers 5.23.
IDLE = {
    "BartForCausalLM": {f"encoder_attn.{name}" for name in ("q_proj", "k_proj", "v_proj")}
    | {"encoder_attn.out_proj"},
    "BartForConditionalGeneration": {"model.shared"},
    "WhisperForCausalLM": {f"encoder_attn.{name}" for name in ("q_proj", "k_proj", "v_proj")}
    | {"encoder_attn.out_proj"},
    "MambaForCausalLM": {"mixer.dt_proj"},
    "LongformerForMaskedLM": {f"self.{name}_global" for name in ("query", "key", "value")},
    "T5ForConditionalGeneration": {"shared"},
    "GPT2LMHeadModel": set(),
}


def anatomy_of(name, folder):
    config = CONFIGS[name]
    config.architectures = [name]
    config.save_pretrained(folder)
    return read(folder, cache=False)


def adaptable(site):
    """Leave out tables of positions, and the map that Mamba's kernels read, which PEFT refuses."""
    is_map = site.in_block and site.kind != "embedding" and not site.path.endswith("mixer.out_proj")
    return is_map or site.path.endswith(("shared", "embed_tokens"))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize("name", CONFIGS)
def test_no_gradient_reaches_an_idle_site_and_one_reaches_every_other(name, tmp_path):
    anatomy = anatomy_of(name, tmp_path)
    adapters = tuple(Adapter(site=s, rank=1, alpha=1) for s in anatomy.sites if adaptable(s))
    placement = Placement(anatomy=anatomy, adapters=adapters, scaling="constant")
    model = getattr(transformers, name)(CONFIGS[name])
    adapted = get_peft_model(model, placement.to_peft())
    ids = torch.arange(3, 19).view(2, 8)
    streams = {"input_ids", "decoder_input_ids"} & inspect.signature(
        model.forward
    ).parameters.keys()
    adapted(**dict.fromkeys(streams, ids)).logits.sum().backward()
    left = {a.site.path for a in adapters if not has_gradient(model.get_submodule(a.site.path))}
    assert left == {a.site.path for a in adapters if a.site.idle}
    ends = {".".join(path.split(".")[-2:]) for path in left}
    assert ends == IDLE[name]


def has_gradient(module):
    parameters = [p for key, p in module.named_parameters() if "lora_" in key]
    assert parameters
    return any(p.grad is not None for p in parameters)


def warned(code, anatomy, rule, **options):
    parsed = parse(rule)
    found = lints(parsed, place(anatomy, parsed, **options), anatomy)
    return [lint.message for lint in found if lint.code == code]


def test_a_rule_that_holds_idle_sites_is_told_how_many_and_where(tmp_path):
    anatomy = anatomy_of("BartForCausalLM", tmp_path)
    (given,) = warned("idle-site", anatomy, "attention @ last(1)", rank=4)
    # Four maps of 16 x 16 at rank 4: 4 * 4 * (16 + 16).
    assert given == (
        "cross_attention.k (1), cross_attention.v (1), cross_attention.q (1), cross_attention.o (1)"
        " in layers 1: no gradient reaches these adapters from tokens alone, and 512 parameters "
        "stay as they are; such as model.decoder.layers.1.encoder_attn.k_proj "
        "(runs only with the states of an encoder: tokens do not pass through it)"
    )
    assert "in layers 0..1:" in warned("idle-site", anatomy, "all")[0]
    assert warned("idle-site", anatomy, "self_attention | feed_forward") == []


def test_an_embedding_that_others_stand_in_for_is_idle(tmp_path):
    anatomy = anatomy_of("BartForConditionalGeneration", tmp_path)
    (given,) = warned("idle-site", anatomy, "embedding", rank=1)
    assert given.startswith("embedding (1): no gradient reaches these adapters")
    assert given.endswith("such as model.shared (tokens do not pass through it)")
    assert warned("idle-site", anatomy, "all") == []


def test_a_map_whose_weight_is_read_without_its_module_is_idle(tmp_path):
    anatomy = anatomy_of("MambaForCausalLM", tmp_path)
    (given,) = warned("idle-site", anatomy, "recurrent.inner")
    assert "mixer.dt_proj (its weight is read without its module: tokens do not" in given


def test_a_rule_that_holds_sites_without_a_role_is_told():
    model = anatomies.llama(layers=2)
    strange = replace(
        anatomies.site("model.layers.1.mix", "other", 32, 32, stack="decoder", layer=1),
        reason="mixes streams",
    )
    anatomy = anatomies.anatomy(
        "strange", {"decoder": 2}, [*model.sites, strange], 100_000, tied_head=False
    )
    (given,) = warned("role-unknown", anatomy, "all")
    assert given == (
        "no role is known for 1 of 15 sites, such as model.layers.1.mix (mixes streams); "
        "a rule of roles, such as attention | feed_forward, leaves them out"
    )
    assert warned("role-unknown", anatomy, "attention | feed_forward") == []
    assert warned("role-unknown", model, "all") == []


def test_an_idle_site_without_a_role_is_told_once(tmp_path):
    anatomy = anatomy_of("LongformerForMaskedLM", tmp_path)
    assert warned("role-unknown", anatomy, "all") == []
    (given,) = warned("idle-site", anatomy, "all")
    assert given.startswith("other (6) in layers 0..1: no gradient")
