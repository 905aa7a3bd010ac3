"""LoRA parameters per rank of published models, worked out by hand from their shapes.

A map from d_in to d_out costs d_in + d_out parameters for each unit of rank. Where the
Tinker cookbook publishes a figure, it is the same.
"""

import pytest
from transformers import LlamaConfig, Qwen3Config

LLAMA_8B = LlamaConfig(
    vocab_size=128_256,
    hidden_size=4096,
    intermediate_size=14_336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
)
LLAMA_70B = LlamaConfig(
    vocab_size=128_256,
    hidden_size=8192,
    intermediate_size=28_672,
    num_hidden_layers=80,
    num_attention_heads=64,
    num_key_value_heads=8,
)
LLAMA_1B = LlamaConfig(
    vocab_size=128_256,
    hidden_size=2048,
    intermediate_size=8192,
    num_hidden_layers=16,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=64,
    tie_word_embeddings=True,
)
QWEN3_8B = Qwen3Config(
    vocab_size=151_936,
    hidden_size=4096,
    intermediate_size=12_288,
    num_hidden_layers=36,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=128,
)


@pytest.mark.parametrize(
    ("config", "attention", "feed_forward"),
    [
        # 8 key-value heads of 128: k and v are 1,024 wide.
        # q, o: 4096 + 4096 = 8,192 each. k, v: 4096 + 1024 = 5,120 each.
        # attention: 2 * 8,192 + 2 * 5,120 = 26,624 a layer; 32 layers: 851,968.
        # feed-forward: 3 * (4096 + 14,336) = 55,296 a layer; 32 layers: 1,769,472.
        pytest.param(LLAMA_8B, 851_968, 1_769_472, id="Llama-3.1-8B"),
        # q, o: 8192 + 8192 = 16,384 each. k, v: 8192 + 1024 = 9,216 each.
        # attention: 2 * 16,384 + 2 * 9,216 = 51,200 a layer; 80 layers: 4,096,000.
        # feed-forward: 3 * (8192 + 28,672) = 110,592 a layer; 80 layers: 8,847,360.
        pytest.param(LLAMA_70B, 4_096_000, 8_847_360, id="Llama-3.1-70B"),
        # 8 key-value heads of 64: k and v are 512 wide.
        # q, o: 2048 + 2048 = 4,096 each. k, v: 2048 + 512 = 2,560 each.
        # attention: 2 * 4,096 + 2 * 2,560 = 13,312 a layer; 16 layers: 212,992.
        # feed-forward: 3 * (2048 + 8192) = 30,720 a layer; 16 layers: 491,520.
        pytest.param(LLAMA_1B, 212_992, 491_520, id="Llama-3.2-1B"),
        # attention as in Llama-3.1-8B: 26,624 a layer; 36 layers: 958,464.
        # feed-forward: 3 * (4096 + 12,288) = 49,152 a layer; 36 layers: 1,769,472.
        pytest.param(QWEN3_8B, 958_464, 1_769_472, id="Qwen3-8B"),
    ],
)
def test_parameters_per_rank(read_config, config, attention, feed_forward):
    found: dict[str, int] = {}
    for site in read_config(config.to_dict()).sites:
        family = str(site.role.family)
        found[family] = found.get(family, 0) + site.parameters_per_rank
    assert found["attention"] == attention
    assert found["feed_forward"] == feed_forward
    assert "other" not in found
