"""What must be known of a model beyond its sites to say what a step costs?

Shapes tell the products of a block; how many heads share them, which experts a token visits,
what stands between the maps, and in which order, stands in the configuration. Nothing here
needs torch. For a model type that is not described here the blocks are taken to have
attention before feed-forward; FLOPs can then be counted, memory cannot.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from loratlas.cost.model_types import MODEL_TYPES, SIDE_BY_SIDE, ModelType, Named, Order

# What FLOPs of a model type without an entry are counted by; none of it makes a product.
_UNKNOWN = ModelType(norm="layer_norm", positions="learned")


@dataclass(frozen=True, kw_only=True, slots=True)
class Blueprint:
    """How the blocks of a model are put together.

    Attributes:
        num_layers: blocks that a pass runs through, None where the configuration does not say.
        num_heads: attention heads, None where the configuration does not say.
        num_key_value_heads: heads of keys and values.
        experts_per_token: experts that each token visits, None for dense models.
        activation: name of the feed-forward's function.
        order: norms and parts in their order, as `ModelType.order` has it.
        code: what the model type's code does between the maps.
        rotary_share: share of a head that is turned, 0 where heads are turned as they are.
        attention_cap: bound of the scores by a tanh, 0 for none.
        logit_cap: bound of the logits by a tanh, 0 for none.
        window: tokens that attention reaches back, 0 where it reaches all.
        hidden_dropout: base dropout on what a part gives back.
        inner_dropout: base dropout on the feed-forward's inner values.
        attention_dropout: base dropout on attention weights.
        is_described: whether everything that memory depends on is known.
    """

    num_layers: int | None = None
    num_heads: int | None = None
    num_key_value_heads: int | None = None
    experts_per_token: int | None = None
    activation: str = "gelu"
    order: Order = "pre"
    code: ModelType = _UNKNOWN
    rotary_share: float = 0.0
    attention_cap: float = 0.0
    logit_cap: float = 0.0
    window: int = 0
    hidden_dropout: float = 0.0
    inner_dropout: float = 0.0
    attention_dropout: float = 0.0
    is_described: bool = False


_HEADS = ("num_attention_heads", "n_head", "num_heads", "n_heads", "encoder_attention_heads")
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
    known = MODEL_TYPES.get(model_type)
    if known is None:
        return Blueprint(
            num_layers=_integer(config, ("num_hidden_layers",)),
            num_heads=heads,
            num_key_value_heads=_integer(config, _KEY_VALUE_HEADS) or heads,
            experts_per_token=_experts_per_token(config, model_type),
            order=_order(config, model_type, "pre"),
        )
    heads = heads or known.num_heads
    return Blueprint(
        num_layers=_integer(config, ("num_hidden_layers",)),
        num_heads=heads,
        num_key_value_heads=_integer(config, _KEY_VALUE_HEADS) or heads,
        experts_per_token=_experts_per_token(config, model_type),
        activation=_activation(config, known),
        order=_order(config, model_type, known.order),
        code=known,
        rotary_share=_rotary_share(config, known),
        attention_cap=_number(config, known.attention_cap),
        logit_cap=_number(config, known.logit_cap),
        window=0 if config.get("use_sliding_window") is False else _window(config, known),
        hidden_dropout=_dropout(config, known.hidden_dropout, base_dropout),
        inner_dropout=_dropout(config, known.inner_dropout, base_dropout),
        attention_dropout=_dropout(config, known.attention_dropout, base_dropout),
        is_described=True,
    )


def _integer(config: Mapping[str, Any], keys: Iterable[str]) -> int | None:
    found = (config.get(key) for key in keys)
    return next((n for n in found if isinstance(n, int) and not isinstance(n, bool)), None)


def _experts_per_token(config: Mapping[str, Any], model_type: str) -> int | None:
    return _integer(config, _EXPERTS_PER_TOKEN) or _DEFAULT_EXPERTS_PER_TOKEN.get(model_type)


def _order(config: Mapping[str, Any], model_type: str, usual: Order) -> Order:
    if model_type not in SIDE_BY_SIDE:
        return usual
    key = SIDE_BY_SIDE[model_type]
    return "parallel" if key is None or config.get(*key) else usual


def _number(config: Mapping[str, Any], named: Named) -> float:
    """Return a number of the configuration; null there means none."""
    return float(config.get(*named) or 0.0)


def _window(config: Mapping[str, Any], known: ModelType) -> int:
    return int(_number(config, ("sliding_window", known.window)))


def _rotary_share(config: Mapping[str, Any], known: ModelType) -> float:
    """Return the share of a head that is turned; newer files keep it among rotary parameters."""
    if known.rotary_share is None:
        return 0.0
    nested = config.get("rope_parameters") or {}
    return float(nested.get("partial_rotary_factor") or _number(config, known.rotary_share))


def _activation(config: Mapping[str, Any], known: ModelType) -> str:
    named = next((config[key] for key in _ACTIVATIONS if config.get(key)), None)
    if named is None:  # T5 writes both facts in one word: gated-gelu
        named = str(config.get("feed_forward_proj", known.activation)).removeprefix("gated-")
        gated_gelu = config.get("feed_forward_proj") == "gated-gelu"
        return "gelu_new" if gated_gelu else named
    return str(named)


def _dropout(config: Mapping[str, Any], known: Named | None, base_dropout: float | None) -> float:
    if known is None:
        return 0.0
    return float(config.get(*known)) if base_dropout is None else base_dropout
