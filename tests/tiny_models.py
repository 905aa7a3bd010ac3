"""Models of six families with random weights, small enough to be wrapped hundreds of times."""

from copy import deepcopy
from functools import cache


def gpt2(layers=3):
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_embd=32, n_layer=layers, n_head=4, n_positions=16, vocab_size=64)
    return GPT2LMHeadModel(config)


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=64,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config)


def bert():
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=64,
        max_position_embeddings=16,
    )
    return BertForMaskedLM(config)


def t5():
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        d_model=32,
        d_kv=8,
        num_heads=4,
        d_ff=64,
        num_layers=2,
        num_decoder_layers=3,
        vocab_size=64,
        decoder_start_token_id=0,
    )
    return T5ForConditionalGeneration(config)


def mixtral():
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
        vocab_size=64,
    )
    return MixtralForCausalLM(config)


def qwen3_moe():
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    config = Qwen3MoeConfig(
        hidden_size=32,
        intermediate_size=48,
        moe_intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        num_experts=4,
        num_experts_per_tok=2,
        mlp_only_layers=[0],
        vocab_size=64,
    )
    return Qwen3MoeForCausalLM(config)


FAMILIES = {
    "gpt2": gpt2,
    "llama": llama,
    "bert": bert,
    "t5": t5,
    "mixtral": mixtral,
    "qwen3_moe": qwen3_moe,
}


@cache
def _one(family):
    return FAMILIES[family]()


def fresh(family):
    """Return a model of a family that nothing has changed yet."""
    return deepcopy(_one(family))


@cache
def anatomy_of(family):
    """Return the anatomy of a family, read from its configuration."""
    from loratlas.placement.instance import model_of

    return model_of(_one(family)).anatomy
