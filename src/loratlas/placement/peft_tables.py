"""What PEFT knows about model types: default targets, renamed experts, refused modules.

Copied facts, so that a configuration can be explained without importing PEFT (and torch);
a test holds every table against the installed PEFT.
"""

from collections.abc import Iterable, Mapping

# `TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING` in peft/utils/constants.py: what
# `target_modules=None` means.
_BY_TARGETS: Mapping[tuple[str, ...], str] = {
    ("q", "v"): "t5 mt5",
    ("q_proj", "v_proj"): (
        "bart opt gptj gpt_neo llama llama4 mistral mixtral stablelm gemma gemma2 gemma3_text "
        "qwen2 qwen3"
    ),
    ("q", "v", "q_proj", "v_proj"): "blip-2",
    ("c_attn",): "gpt2 gpt_bigcode",
    ("query_key_value",): "bloom gpt_neox chatglm RefinedWebModel RefinedWeb falcon",
    ("query", "value"): "bert roberta xlm-roberta electra layoutlm",
    ("query_proj", "value_proj"): "deberta-v2",
    ("in_proj",): "deberta",
    ("Wqkv",): "mpt",
    ("c_proj", "c_attn"): "btlm",
    ("qkv_proj",): "codegen",
    ("q_proj", "v_proj", "fc1", "fc2"): "phi",
    ("q_proj", "k_proj", "v_proj", "o_proj"): "nemotron_h",
    ("key", "value", "receptance", "output"): "rwkv",
    ("r_proj", "k_proj", "v_proj", "o_proj", "key", "value"): "rwkv7",
}
DEFAULT_TARGETS: Mapping[str, str | tuple[str, ...]] = {
    **{name: targets for targets, names in _BY_TARGETS.items() for name in names.split()},
    "gemma4": r".*language_model\..*\.(q_proj|v_proj)",
}

# `_MOE_TARGET_MODULE_MAPPING` in peft/utils/transformers_weight_conversion.py: the names that
# experts and routers had in older checkpoints, and the parameters that they are now.
_MIXTRAL = {"gate": "gate.weight", "w1": "gate_up_proj", "w3": "gate_up_proj", "w2": "down_proj"}
_QWEN2_MOE = {
    "gate": "gate.weight",
    "gate_proj": "gate_up_proj",
    "up_proj": "gate_up_proj",
    "down_proj": "down_proj",
}
_QWEN2_MOE_TYPES = (
    "Dots3NoteTextModel",
    "UnlimitedOcrTextModel",
    "afmoe",
    "beam",
    "cohere2_moe",
    "deepseek_v2",
    "deepseek_v3",
    "deepseek_v32",
    "dots1",
    "ernie4_5_moe",
    "exaone_moe",
    "flex_olmo",
    "glm4_moe",
    "glm4_moe_lite",
    "glm4v_moe",
    "glm_moe_dsa",
    "hunyuan_v1_moe",
    "longcat_flash",
    "mellum",
    "olmoe",
    "qwen3_moe",
    "qwen3_next",
    "qwen3_omni_moe",
    "qwen3_omni_moe_text",
    "qwen3_omni_moe_thinker",
    "solar_open",
)
RENAMED_EXPERTS: Mapping[str, Mapping[str, str]] = {
    **dict.fromkeys(("minimax", "minimax_m2", "mixtral"), _MIXTRAL),
    **dict.fromkeys(_QWEN2_MOE_TYPES, _QWEN2_MOE),
}
FUSED = "gate_up_proj"

# `_check_lora_target_modules_mamba` in peft/tuners/tuners_utils.py.
MAMBA_TYPES = frozenset({"falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h"})
MAMBA_REFUSED = frozenset({"out_proj", "conv1d"})


def mamba_refused(paths: Iterable[str], model_type: str) -> list[str]:
    """Return the paths that PEFT refuses to adapt in models of a type."""
    if model_type not in MAMBA_TYPES:
        return []
    return sorted(path for path in paths if path.rsplit(".", 1)[-1] in MAMBA_REFUSED)


# `MIN_TARGET_MODULES_FOR_OPTIMIZATION` in peft/utils/constants.py: from this many targets on,
# PEFT replaces them by shorter suffixes.
SHORTENED_FROM = 20
