"""Every language-model class of transformers, with a small configuration to build it from.

The default configuration of a class, with fewer layers. Where it does not build, or has
layers that a number alone does not shorten, `OVERRIDES` says what else it takes.
"""

import json
from collections.abc import Iterator
from typing import Any

from transformers import PreTrainedConfig
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

MOST_LAYERS = 4
_TASKS = (
    modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)
_LAYERS = {"num_hidden_layers", "num_layers", "n_layer", "n_layers", "depth"} | {
    f"{stack}_layers" for stack in ("encoder", "decoder", "speech_encoder", "text_encoder")
}
_LAYERS |= {f"num_{stack}_layers" for stack in ("encoder", "decoder")}

# By model type, or by class where two classes of one type differ.
OVERRIDES: dict[str, dict[str, Any]] = {
    "deepseek_v2": {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "n_routed_experts": 4},
    "dots1": {
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
    },
    "esm": {"vocab_size": 33, "pad_token_id": 1, "mask_token_id": 32},
    "gemma3n_text": {"num_hidden_layers": 4, "num_kv_shared_layers": 1, "layer_types": None},
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128},
    "lfm2_moe": {"num_hidden_layers": 4, "layer_types": ["conv", "conv", "full_attention", "conv"]},
    "ministral": {"head_dim": 128},
    "nemotron": {"num_key_value_heads": 8},
    "ReformerModelWithLMHead": {"is_decoder": True},
    "zamba": {"num_hidden_layers": 12, "attn_layer_period": 6},
    "zamba2": {
        "num_hidden_layers": 4,
        "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
        "num_mem_blocks": 1,
    },
}


def classes() -> Iterator[tuple[str, str]]:
    """Yield model type and class name, each class once for each type."""
    found = {(kind, name) for names in _TASKS for kind, name in names.items()}
    yield from sorted(found)


def small_config(model_type: str, architecture: str) -> dict[str, Any]:
    """Return the configuration of a class, as a ``config.json`` holds it."""
    config_class = CONFIG_MAPPING[model_type]
    options = {**_fewer_layers(config_class()), **_overrides(model_type, architecture)}
    return _plain(config_class(**options), architecture)


def default_config(model_type: str, architecture: str) -> dict[str, Any]:
    """Return the configuration of a class as the library has it."""
    options = _overrides(model_type, architecture)
    return _plain(CONFIG_MAPPING[model_type](**options), architecture)


def _overrides(model_type: str, architecture: str) -> dict[str, Any]:
    return {**OVERRIDES.get(model_type, {}), **OVERRIDES.get(architecture, {})}


def _plain(config: PreTrainedConfig, architecture: str) -> dict[str, Any]:
    config.architectures = [architecture]
    return {**json.loads(config.to_json_string(use_diff=False)), "model_type": config.model_type}


def _fewer_layers(config: PreTrainedConfig) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name in (config.attribute_map.get(name, name) for name in _LAYERS):
        count = getattr(config, name, None)
        if type(count) is int and count > MOST_LAYERS:
            options[name] = MOST_LAYERS
    for name in config.sub_configs:
        part = getattr(config, name, None)
        if isinstance(part, PreTrainedConfig) and (inner := _fewer_layers(part)):
            options[name] = {"model_type": part.model_type, **inner}
    return options
