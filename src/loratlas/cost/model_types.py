"""What does the code of each model type do between its maps?

One entry says how transformers writes the block of a model type: what is normed and where, how a
token learns its place, which functions and dropouts stand between the maps. Nothing of a
measurement is in it. A type without an entry has no figure of memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

Norm = Literal["layer_norm", "rms_norm"]
Order = Literal["pre", "post", "around", "after", "parallel"]
Positions = Literal["learned", "rotary", "relative"]
Named = tuple[str, float]
"""A key of the configuration, and what transformers takes where it is missing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelType:
    """What the code of a model type does, and its defaults.

    Attributes:
        norm: how rows are normalised.
        order: norm before each part (pre), after the sum (post), before and after each part
            (around), after each part (after), or attention beside the feed-forward (parallel).
        positions: how a token learns where it stands.
        activation: the feed-forward's function.
        num_heads: attention heads.
        normed_heads: whether queries and keys are normalised.
        normed_embeddings: whether the sum of the embeddings is.
        normed_result: whether the last block's result is.
        own_norms: whether parts beside each other have a norm each.
        rotary_share: share of a head that is turned; such models cut heads apart and join them.
        fused: whether a fused map's result is split at once or cut into slices one by one.
        scales_query: whether queries are scaled by a step of their own.
        scales_embeddings: whether embeddings are.
        scales_results: whether what a part gives back is.
        scales_logits: whether logits are.
        attention_cap: bound of the scores by a tanh, 0 for none.
        logit_cap: bound of the logits by a tanh, 0 for none.
        has_kernel: whether attention can run in one kernel.
        num_masks: masks that the blocks share, one for each kind of block.
        num_angles: tables of rotary angles that the blocks share.
        hidden_dropout: base dropout on what a part gives back.
        inner_dropout: base dropout on the feed-forward's inner values.
        attention_dropout: base dropout on attention weights.
        drops_attention: whether attention's result is dropped as the feed-forward's is.
        drops_embeddings: whether embeddings are dropped.
        window: tokens that attention reaches back, 0 where it reaches all.
    """

    norm: Norm = "rms_norm"
    order: Order = "pre"
    positions: Positions = "rotary"
    activation: str = "silu"
    num_heads: int = 32
    normed_heads: bool = False
    normed_embeddings: bool = False
    normed_result: bool = True
    own_norms: bool = False
    rotary_share: Named | None = None
    fused: Literal["split", "slices"] = "split"
    scales_query: bool = False
    scales_embeddings: bool = False
    scales_results: bool = False
    scales_logits: bool = False
    attention_cap: Named = ("", 0.0)
    logit_cap: Named = ("", 0.0)
    has_kernel: bool = True
    num_masks: int = 1
    num_angles: int = 1
    hidden_dropout: Named | None = None
    inner_dropout: Named | None = None
    attention_dropout: Named | None = ("attention_dropout", 0.0)
    drops_attention: bool = True
    drops_embeddings: bool = True
    window: int = 0


_LLAMA = ModelType()
_BERT = ModelType(
    norm="layer_norm",
    order="post",
    positions="learned",
    activation="gelu",
    num_heads=12,
    normed_embeddings=True,
    normed_result=False,
    hidden_dropout=("hidden_dropout_prob", 0.1),
    attention_dropout=("attention_probs_dropout_prob", 0.1),
)
_BART = replace(
    _BERT,
    num_heads=16,
    hidden_dropout=("dropout", 0.1),
    inner_dropout=("activation_dropout", 0.0),
    attention_dropout=("attention_dropout", 0.0),
)
_GEMMA = replace(_LLAMA, activation="gelu_pytorch_tanh", num_heads=8, scales_embeddings=True)

MODEL_TYPES: Mapping[str, ModelType] = {
    "gpt2": ModelType(
        norm="layer_norm",
        positions="learned",
        activation="gelu_new",
        num_heads=12,
        hidden_dropout=("resid_pdrop", 0.1),
        attention_dropout=("attn_pdrop", 0.1),
    ),
    "opt": ModelType(
        norm="layer_norm",
        positions="learned",
        activation="relu",
        num_heads=12,
        scales_query=True,
        hidden_dropout=("dropout", 0.1),
        drops_embeddings=False,
    ),
    "gpt_neox": ModelType(
        norm="layer_norm",
        activation="gelu",
        num_heads=64,
        own_norms=True,
        rotary_share=("rotary_pct", 0.25),
        hidden_dropout=("hidden_dropout", 0.0),
    ),
    "phi": ModelType(
        norm="layer_norm",
        activation="gelu_new",
        rotary_share=("partial_rotary_factor", 0.5),
        hidden_dropout=("resid_pdrop", 0.0),
    ),
    "stablelm": ModelType(
        norm="layer_norm",
        rotary_share=("partial_rotary_factor", 0.25),
        hidden_dropout=("hidden_dropout", 0.0),
        drops_attention=False,
        drops_embeddings=False,
    ),
    "starcoder2": ModelType(
        norm="layer_norm",
        activation="gelu_pytorch_tanh",
        num_heads=24,
        hidden_dropout=("residual_dropout", 0.0),
    ),
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "electra": _BERT,
    "distilbert": replace(
        _BERT,
        hidden_dropout=("dropout", 0.1),
        attention_dropout=("attention_dropout", 0.1),
        drops_attention=False,
    ),
    "bart": _BART,
    "mbart": replace(_BART, order="pre", normed_result=True),
    "t5": ModelType(
        positions="relative",
        activation="relu",
        num_heads=8,
        hidden_dropout=("dropout_rate", 0.1),
        inner_dropout=("dropout_rate", 0.1),
        attention_dropout=("dropout_rate", 0.1),
    ),
    "llama": _LLAMA,
    "mistral": replace(_LLAMA, window=4096),
    "qwen2": _LLAMA,
    "qwen3": replace(_LLAMA, normed_heads=True),
    "smollm3": _LLAMA,
    "olmo2": replace(_LLAMA, order="after", normed_heads=True),
    "granite": replace(
        _LLAMA, scales_embeddings=True, scales_results=True, scales_logits=True
    ),
    "phi3": replace(
        _LLAMA,
        rotary_share=("partial_rotary_factor", 1.0),
        fused="slices",
        hidden_dropout=("resid_pdrop", 0.0),
    ),
    "gemma": _GEMMA,
    "gemma2": replace(
        _GEMMA,
        order="around",
        attention_cap=("attn_logit_softcapping", 50.0),
        logit_cap=("final_logit_softcapping", 30.0),
        has_kernel=False,
        num_masks=2,
        window=4096,
    ),
    "gemma3_text": replace(
        _GEMMA, order="around", normed_heads=True, num_masks=2, num_angles=2, window=4096
    ),
    "mixtral": _LLAMA,
    "olmoe": replace(_LLAMA, normed_heads=True),
    "qwen2_moe": _LLAMA,
    "qwen3_moe": replace(_LLAMA, normed_heads=True),
}  # fmt: skip

SIDE_BY_SIDE: Mapping[str, tuple[str, bool] | None] = {
    "codegen": None,
    "cohere": None,
    "cohere2": None,
    "gptj": None,
    "phi": None,
    "falcon": ("parallel_attn", True),
    "gpt_neox": ("use_parallel_residual", True),
    "stablelm": ("use_parallel_residual", False),
}
"""Attention and feed-forward read the same input: always, or where the named key says so."""
