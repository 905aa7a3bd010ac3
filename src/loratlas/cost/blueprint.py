"""What must be known of a model beyond its sites to say what a step costs?

Shapes tell the products of a block; how many heads share them, which experts a token visits,
what stands between the maps, and in which order, stands in the configuration. Nothing here
needs torch. For a model type that is not described here the blocks are taken to have
attention before feed-forward; FLOPs can then be counted, memory cannot.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Norm = Literal["layer_norm", "rms_norm"]
Order = Literal["pre", "post", "parallel"]
Positions = Literal["learned", "rotary", "relative"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Blueprint:
    """How the blocks of a model are put together.

    Attributes:
        num_heads: attention heads, None where the configuration does not say.
        num_key_value_heads: heads of keys and values.
        experts_per_token: experts that each token visits, None for dense models.
        activation: name of the feed-forward's function.
        norm: how rows are normalised.
        order: norm before each part, after it, or attention and feed-forward side by side.
        positions: how a token learns where it stands.
        normed_heads: whether queries and keys are normalised head by head.
        hidden_dropout: base dropout on what a part gives back.
        attention_dropout: base dropout on attention weights.
        is_described: whether everything that memory depends on is known.
    """

    num_heads: int | None = None
    num_key_value_heads: int | None = None
    experts_per_token: int | None = None
    activation: str = "gelu"
    norm: Norm = "layer_norm"
    order: Order = "pre"
    positions: Positions = "learned"
    normed_heads: bool = False
    hidden_dropout: float = 0.0
    attention_dropout: float = 0.0
    is_described: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class _Type:
    """A model type whose blocks are described: what its code does, and its defaults."""

    norm: Norm
    order: Order
    positions: Positions
    activation: str
    num_heads: int
    normed_heads: bool = False
    hidden_dropout: tuple[str, float] | None = None
    attention_dropout: tuple[str, float] | None = None


_LLAMA_LIKE: dict[str, Any] = {
    "norm": "rms_norm",
    "order": "pre",
    "positions": "rotary",
    "activation": "silu",
    "num_heads": 32,
    "attention_dropout": ("attention_dropout", 0.0),
}
_TYPES = {
    "gpt2": _Type(
        norm="layer_norm",
        order="pre",
        positions="learned",
        activation="gelu_new",
        num_heads=12,
        hidden_dropout=("resid_pdrop", 0.1),
        attention_dropout=("attn_pdrop", 0.1),
    ),
    "bert": _Type(
        norm="layer_norm",
        order="post",
        positions="learned",
        activation="gelu",
        num_heads=12,
        hidden_dropout=("hidden_dropout_prob", 0.1),
        attention_dropout=("attention_probs_dropout_prob", 0.1),
    ),
    "t5": _Type(
        norm="rms_norm",
        order="pre",
        positions="relative",
        activation="relu",
        num_heads=8,
        hidden_dropout=("dropout_rate", 0.1),
        attention_dropout=("dropout_rate", 0.1),
    ),
    "llama": _Type(**_LLAMA_LIKE),
    "mistral": _Type(**_LLAMA_LIKE),
    "qwen2": _Type(**_LLAMA_LIKE),
    "qwen3": _Type(**_LLAMA_LIKE, normed_heads=True),
}

# Attention and feed-forward read the same input: always, or where the named key says so.
_SIDE_BY_SIDE: dict[str, tuple[str, bool] | None] = {
    "codegen": None,
    "cohere": None,
    "cohere2": None,
    "gptj": None,
    "phi": None,
    "falcon": ("parallel_attn", True),
    "gpt_neox": ("use_parallel_residual", True),
    "stablelm": ("use_parallel_residual", False),
}
_HEADS = ("num_attention_heads", "n_head", "num_heads", "n_heads")
_KEY_VALUE_HEADS = ("num_key_value_heads", "num_kv_heads", "multi_query_group_num")
_EXPERTS_PER_TOKEN = (
    "num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_top_k", "top_k_experts",
    "moe_k", "top_k", "num_selected_experts",
)  # fmt: skip
# What transformers takes where the configuration is silent; more is not guessed.
_DEFAULT_EXPERTS_PER_TOKEN = {"mixtral": 2, "qwen2_moe": 4, "qwen3_moe": 8, "olmoe": 8}
_ACTIVATIONS = ("activation_function", "hidden_act", "hidden_activation", "dense_act_fn")


def read_blueprint(config: Mapping[str, Any], *, base_dropout: float | None = 0.0) -> Blueprint:
    """Return what a configuration says of the blocks.

    Args:
        config: the content of ``config.json``; of a multimodal model, its text part counts.
        base_dropout: dropout of the frozen base; None keeps what the configuration says.
    """
    text = config.get("text_config")
    config = text if isinstance(text, Mapping) else config
    model_type = str(config.get("model_type", ""))
    heads = _integer(config, _HEADS)
    known = _TYPES.get(model_type)
    if known is None:
        return Blueprint(
            num_heads=heads,
            num_key_value_heads=_integer(config, _KEY_VALUE_HEADS) or heads,
            experts_per_token=_experts_per_token(config, model_type),
            order="parallel" if _is_side_by_side(config, model_type) else "pre",
        )
    heads = heads or known.num_heads
    return Blueprint(
        num_heads=heads,
        num_key_value_heads=_integer(config, _KEY_VALUE_HEADS) or heads,
        activation=_activation(config, known),
        norm=known.norm,
        order=known.order,
        positions=known.positions,
        normed_heads=known.normed_heads,
        hidden_dropout=_dropout(config, known.hidden_dropout, base_dropout),
        attention_dropout=_dropout(config, known.attention_dropout, base_dropout),
        is_described=True,
    )


def _integer(config: Mapping[str, Any], keys: Iterable[str]) -> int | None:
    found = (config.get(key) for key in keys)
    return next((n for n in found if isinstance(n, int) and not isinstance(n, bool)), None)


def _experts_per_token(config: Mapping[str, Any], model_type: str) -> int | None:
    return _integer(config, _EXPERTS_PER_TOKEN) or _DEFAULT_EXPERTS_PER_TOKEN.get(model_type)


def _is_side_by_side(config: Mapping[str, Any], model_type: str) -> bool:
    if model_type not in _SIDE_BY_SIDE:
        return False
    key = _SIDE_BY_SIDE[model_type]
    return True if key is None else bool(config.get(*key))


def _activation(config: Mapping[str, Any], known: _Type) -> str:
    named = next((config[key] for key in _ACTIVATIONS if config.get(key)), None)
    if named is None:  # T5 writes both facts in one word: gated-gelu
        named = str(config.get("feed_forward_proj", known.activation)).removeprefix("gated-")
        gated_gelu = config.get("feed_forward_proj") == "gated-gelu"
        return "gelu_new" if gated_gelu else named
    return str(named)


def _dropout(
    config: Mapping[str, Any], known: tuple[str, float] | None, base_dropout: float | None
) -> float:
    if known is None:
        return 0.0
    return float(config.get(*known)) if base_dropout is None else base_dropout
