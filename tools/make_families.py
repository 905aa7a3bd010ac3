"""Make the golden file of role counts, and the table of families in the documentation.

    python tools/make_families.py           compare the golden file with what is read today
    python tools/make_families.py --write   read the models anew and write both files

Each family is read from a small configuration below: a few layers, small widths, no
weights. A difference is a change in what rules mean, so it is reviewed line by line;
``--write`` comes after the review.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loratlas.anatomy.read import read
from loratlas.anatomy.sites import Anatomy, Site

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden" / "families.json"
TABLE = ROOT / "docs" / "reference" / "families.md"
REVIEW = "a change here is reviewed, not regenerated"

_SIZE = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_PLAIN = {**_SIZE, "intermediate_size": 48}
_GATED = {**_PLAIN, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0}
_T5 = {"vocab_size": 99, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
_BART = {
    "vocab_size": 99,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
}
_LATENT = {
    **_PLAIN,
    "num_key_value_heads": 4,
    "q_lora_rank": 12,
    "kv_lora_rank": 10,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 6,
    "first_k_dense_replace": 1,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "n_group": 2,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
}
_HEADS = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 99}
_GEMMA = {**_GATED, "query_pre_attn_scalar": 8}

# Class by model type where the library maps a type to several tasks.
_MASKED = {
    "albert": "AlbertForMaskedLM",
    "bert": "BertForMaskedLM",
    "deberta": "DebertaForMaskedLM",
    "deberta-v2": "DebertaV2ForMaskedLM",
    "distilbert": "DistilBertForMaskedLM",
    "electra": "ElectraForMaskedLM",
    "modernbert": "ModernBertForMaskedLM",
    "mpnet": "MPNetForMaskedLM",
    "roberta": "RobertaForMaskedLM",
    "xlm-roberta": "XLMRobertaForMaskedLM",
}

FAMILIES: Mapping[str, dict[str, Any]] = {
    # Decoders with plain feed-forward blocks
    "gpt2": _HEADS,
    "gpt_neo": {**_SIZE, "num_layers": 2, "num_heads": 4, "attention_types": [[["global"], 2]]},
    "gpt_neox": _PLAIN,
    "gptj": {**_HEADS, "rotary_dim": 4},
    "opt": {**_SIZE, "ffn_dim": 48, "word_embed_proj_dim": 32},
    "bloom": {"vocab_size": 99, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "falcon": {**_SIZE, "multi_query": True},
    "phi": {**_PLAIN, "pad_token_id": 0},
    "starcoder2": _GATED,
    # Decoders with gated feed-forward blocks
    "llama": _GATED,
    "mistral": _GATED,
    "qwen2": _GATED,
    "qwen3": _GATED,
    "gemma": _GATED,
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
    "phi3": _GATED,
    "granite": _GATED,
    "cohere": _GATED,
    "stablelm": _GATED,
    "olmo2": _GATED,
    "smollm3": _GATED,
    # Mixtures of experts
    "mixtral": {**_GATED, "num_local_experts": 4},
    "qwen2_moe": {
        **_GATED,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "shared_expert_intermediate_size": 40,
    },
    "qwen3_moe": {
        **_GATED,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
    },
    "olmoe": {**_GATED, "num_experts": 4, "num_experts_per_tok": 2},
    "gpt_oss": {**_GATED, "num_local_experts": 4, "num_experts_per_tok": 2},
    "deepseek_v2": _LATENT,
    "deepseek_v3": _LATENT,
    "jetmoe": {
        **_SIZE,
        "intermediate_size": 48,
        "num_key_value_heads": 2,
        "kv_channels": 8,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
    },
    "deepseek_v32": {**_LATENT, "index_n_heads": 2, "index_head_dim": 8, "index_topk": 4},
    # Mixers with a state
    "mamba": {**_SIZE, "state_size": 4},
    "rwkv": {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "context_length": 16},
    "jamba": {
        **_PLAIN,
        "num_hidden_layers": 4,
        "num_key_value_heads": 2,
        "attn_layer_period": 4,
        "attn_layer_offset": 2,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "num_experts": 4,
        "mamba_d_state": 4,
        "mamba_dt_rank": 4,
        "use_mamba_kernels": False,
    },
    "minimax": {
        **_GATED,
        "num_local_experts": 4,
        "layer_types": ["linear_attention", "full_attention"],
    },
    "xlnet": {"vocab_size": 99, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48},
    # Encoders
    "bert": _PLAIN,
    "roberta": _PLAIN,
    "xlm-roberta": _PLAIN,
    "deberta": {**_PLAIN, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "deberta-v2": {**_PLAIN, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "albert": {**_PLAIN, "embedding_size": 16},
    "electra": {**_PLAIN, "embedding_size": 16},
    "distilbert": {"vocab_size": 99, "dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4},
    "mpnet": _PLAIN,
    "modernbert": {**_PLAIN, "pad_token_id": 0},
    # Encoders with decoders
    "t5": _T5,
    "mt5": _T5,
    "switch_transformers": {
        **_T5,
        "num_decoder_layers": 2,
        "num_sparse_encoder_layers": 1,
        "num_sparse_decoder_layers": 1,
        "num_experts": 4,
    },
    "bart": _BART,
    "mbart": _BART,
    "pegasus": _BART,
    "marian": _BART,
    "led": {**_BART, "attention_window": 4},
    "t5gemma": {"encoder": _GEMMA, "decoder": _GEMMA, "vocab_size": 99},
}


def configuration(model_type: str) -> dict[str, Any]:
    """Return the small configuration of a family, as a ``config.json`` holds it."""
    config = {"model_type": model_type, **FAMILIES[model_type]}
    if model_type in _MASKED:
        config["architectures"] = [_MASKED[model_type]]
    return config


def read_family(model_type: str) -> Anatomy:
    """Return the anatomy of the small model of a family."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        file.write_text(json.dumps(configuration(model_type)))
        return read(file, cache=False)


def summary(anatomy: Anatomy) -> dict[str, Any]:
    """Return how many sites of each stack, role and shape a model has."""
    counts = Counter(_signature(site) for site in anatomy.sites)
    return {
        "architecture": anatomy.architecture,
        "stacks": dict(anatomy.stacks),
        "sites": dict(sorted(counts.items())),
    }


def _signature(site: Site) -> str:
    """Return stack, role, kind and shape: ``decoder attention.q linear 32x64``."""
    experts = f" x{site.num_experts}" if site.num_experts else ""
    shape = f"{site.d_in}x{site.d_out}{experts}"
    return f"{site.stack or '-'} {site.role} {site.kind} {shape}"


def table(golden: Mapping[str, Any]) -> str:
    """Return the page with the table of families, from the golden file."""
    lines = [
        "# Families and their roles",
        "",
        "<!-- Written by tools/make_families.py from tests/golden/families.json. -->",
        "",
        "What the parts of each family are, read from the forward pass of a small model of it:",
        "the model type, the class that is read, and the roles that stand in its blocks.",
        "A star marks stacked parameters, which PEFT reaches by `target_parameters`.",
        "`other` counts sites in blocks without a role; `loratlas anatomy` tells the reason.",
        "",
        "| family | class | attention | feed-forward | experts | recurrent | router | other |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(_row(name, golden[name]) for name in golden)]) + "\n"


_COLUMNS = (
    ("attention", "cross_attention"),
    ("feed_forward",),
    ("expert", "shared_expert"),
    ("recurrent",),
    ("router",),
)


def _row(name: str, family: Mapping[str, Any]) -> str:
    in_blocks = [key.split() for key in family["sites"] if not key.startswith("-")]
    cells = [_cell([k for k in in_blocks if k[1].split(".")[0] in c], c[0]) for c in _COLUMNS]
    sites = family["sites"]
    others = sum(sites[k] for k in sites if not k.startswith("-") and k.split()[1] == "other")
    return f"| {name} | {family['architecture']} | {' | '.join(cells)} | {others or ''} |"


def _cell(keys: list[list[str]], family: str) -> str:
    """Return the parts of one column; those of another family carry its name."""
    parts: dict[str, None] = {}
    for _, role, kind, *_ in sorted(keys, key=_reading_order):
        start, _, part = role.partition(".")
        shown = part if start == family and part else "yes" if start == family else f"{role}"
        parts[shown + ("*" if kind == "expert" else "")] = None
    return ", ".join(f"`{part}`" if part != "yes" else part for part in parts)


_ORDER = (
    *("q", "k", "v", "qkv", "qk", "kv", "q_down", "q_up", "kv_down", "kv_up", "o"),
    *("gate", "up", "gate_up", "down", "in", "inner", "out"),
)


def _reading_order(key: list[str]) -> tuple[bool, int]:
    """Order parts as the forward pass meets them, and families other than the first last."""
    start, _, part = key[1].partition(".")
    return start in ("cross_attention", "shared_expert"), (*_ORDER, part).index(part)


def main() -> int:
    """Compare, or write where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"write both files; {REVIEW}")
    arguments = parser.parse_args()
    found = {name: summary(read_family(name)) for name in FAMILIES}
    if arguments.write:
        GOLDEN.parent.mkdir(parents=True, exist_ok=True)
        TABLE.parent.mkdir(parents=True, exist_ok=True)
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
        TABLE.write_text(table(found))
        return 0
    golden = json.loads(GOLDEN.read_text())
    changed = [name for name in {**golden, **found} if golden.get(name) != found.get(name)]
    for name in changed:
        print(f"{name}: not as in {GOLDEN.relative_to(ROOT)}; {REVIEW}")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
