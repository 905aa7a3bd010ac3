"""Anatomies made by hand, without torch, whose counts can be checked with a pencil."""

from loratlas.anatomy.sites import Anatomy, Role, Site


def site(path, role, d_in, d_out, *, stack=None, layer=None, kind="linear", num_experts=None):
    return Site(
        path=path,
        stack=stack,
        layer=layer,
        role=Role.parse(role),
        d_in=d_in,
        d_out=d_out,
        kind=kind,
        num_experts=num_experts,
    )


def gpt2(width=1024, layers=24, *, vocabulary=50257, num_parameters=354_823_168) -> Anatomy:
    """GPT-2 and DialoGPT: fused qkv, Conv1D, tied head, c_proj in both blocks."""
    sites = [site("transformer.wte", "embedding", vocabulary, width, kind="embedding")]
    for layer in range(layers):
        for name, role, d_in, d_out in (
            ("attn.c_attn", "attention.qkv", width, 3 * width),
            ("attn.c_proj", "attention.o", width, width),
            ("mlp.c_fc", "feed_forward.up", width, 4 * width),
            ("mlp.c_proj", "feed_forward.down", 4 * width, width),
        ):
            path = f"transformer.h.{layer}.{name}"
            sites.append(site(path, role, d_in, d_out, stack="decoder", layer=layer, kind="conv1d"))
    sites.append(site("lm_head", "head", width, vocabulary))
    return anatomy("gpt2", {"decoder": layers}, sites, num_parameters, tied_head=True)


def llama(width=32, layers=4, *, key_value=16, inner=48, vocabulary=64) -> Anatomy:
    """Llama: grouped-query attention (k and v are narrower than q), gated feed-forward."""
    sites = [site("model.embed_tokens", "embedding", vocabulary, width, kind="embedding")]
    for layer in range(layers):
        for name, role, d_in, d_out in (
            ("self_attn.q_proj", "attention.q", width, width),
            ("self_attn.k_proj", "attention.k", width, key_value),
            ("self_attn.v_proj", "attention.v", width, key_value),
            ("self_attn.o_proj", "attention.o", width, width),
            ("mlp.gate_proj", "feed_forward.gate", width, inner),
            ("mlp.up_proj", "feed_forward.up", width, inner),
            ("mlp.down_proj", "feed_forward.down", inner, width),
        ):
            path = f"model.layers.{layer}.{name}"
            sites.append(site(path, role, d_in, d_out, stack="decoder", layer=layer))
    sites.append(site("lm_head", "head", width, vocabulary))
    return anatomy("llama", {"decoder": layers}, sites, 100_000, tied_head=False)


def t5(width=32, encoder=2, decoder=3, *, inner=64, vocabulary=64) -> Anatomy:
    """T5: two stacks, whose depths may differ, cross-attention, an embedding in a block."""
    sites = [site("shared", "embedding", vocabulary, width, kind="embedding")]
    for stack, layers in (("encoder", encoder), ("decoder", decoder)):
        bias = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias"
        sites.append(site(bias, "embedding", 32, 4, stack=stack, layer=0, kind="embedding"))
        for layer in range(layers):
            sites += _t5_block(stack, layer, width, inner)
    sites.append(site("lm_head", "head", width, vocabulary))
    stacks = {"encoder": encoder, "decoder": decoder}
    return anatomy("t5", stacks, sites, 100_000, tied_head=True)


def _t5_block(stack, layer, width, inner):
    attentions = [("SelfAttention", "attention")]
    if stack == "decoder":
        attentions.append(("EncDecAttention", "cross_attention"))
    named = [
        (f"layer.{place}.{module}.{part}", f"{family}.{part}", width, width)
        for place, (module, family) in enumerate(attentions)
        for part in "qkvo"
    ]
    block = f"layer.{len(attentions)}.DenseReluDense"
    named += [
        (f"{block}.wi", "feed_forward.up", width, inner),
        (f"{block}.wo", "feed_forward.down", inner, width),
    ]
    return [
        site(f"{stack}.block.{layer}.{name}", role, d_in, d_out, stack=stack, layer=layer)
        for name, role, d_in, d_out in named
    ]


def mixtral(width=32, layers=2, *, key_value=16, inner=48, experts=4) -> Anatomy:
    """Mixtral: fused expert parameters, and a router."""
    sites = []
    for layer in range(layers):
        for name, role, d_in, d_out, num_experts in (
            ("self_attn.q_proj", "attention.q", width, width, None),
            ("self_attn.k_proj", "attention.k", width, key_value, None),
            ("self_attn.v_proj", "attention.v", width, key_value, None),
            ("self_attn.o_proj", "attention.o", width, width, None),
            ("mlp.gate.weight", "router", width, experts, None),
            ("mlp.experts.gate_up_proj", "expert.gate_up", width, 2 * inner, experts),
            ("mlp.experts.down_proj", "expert.down", inner, width, experts),
        ):
            sites.append(
                site(
                    f"model.layers.{layer}.{name}",
                    role,
                    d_in,
                    d_out,
                    stack="decoder",
                    layer=layer,
                    kind="linear" if name.startswith("self_attn") else "expert",
                    num_experts=num_experts,
                )
            )
    return anatomy("mixtral", {"decoder": layers}, sites, 100_000, tied_head=False)


def qwen3_moe(width=32, *, key_value=16, inner=48, experts=4) -> Anatomy:
    """Qwen3-MoE: a dense block, whose names PEFT gives another meaning, and a sparse block."""
    sites = []
    for layer in range(2):
        block = f"model.layers.{layer}"
        named = [
            ("self_attn.q_proj", "attention.q", width, width),
            ("self_attn.k_proj", "attention.k", width, key_value),
            ("self_attn.v_proj", "attention.v", width, key_value),
            ("self_attn.o_proj", "attention.o", width, width),
        ]
        if layer == 0:
            named += [
                ("mlp.gate_proj", "feed_forward.gate", width, inner),
                ("mlp.up_proj", "feed_forward.up", width, inner),
                ("mlp.down_proj", "feed_forward.down", inner, width),
            ]
        sites += [
            site(f"{block}.{name}", role, d_in, d_out, stack="decoder", layer=layer)
            for name, role, d_in, d_out in named
        ]
    where = {"stack": "decoder", "layer": 1, "kind": "expert"}
    sites += [
        site("model.layers.1.mlp.gate.weight", "router", width, experts, **where),
        site(
            "model.layers.1.mlp.experts.gate_up_proj",
            "expert.gate_up",
            width,
            2 * inner,
            num_experts=experts,
            **where,
        ),
        site(
            "model.layers.1.mlp.experts.down_proj",
            "expert.down",
            inner,
            width,
            num_experts=experts,
            **where,
        ),
    ]
    return anatomy("qwen3_moe", {"decoder": 2}, sites, 100_000, tied_head=False)


def nested() -> Anatomy:
    """A model in which the path of one site is the end of another's: block.0.q and x.block.0.q."""
    sites = [
        site("block.0.q", "attention.q", 8, 8, stack="decoder", layer=0),
        site("x.block.0.q", "attention.q", 8, 8, stack="encoder", layer=0),
        site("x.block.0.v", "attention.v", 8, 8, stack="encoder", layer=0),
    ]
    return anatomy("nested", {"encoder": 1, "decoder": 1}, sites, 1_000, tied_head=False)


def anatomy(name, stacks, sites, num_parameters, *, tied_head):
    return Anatomy(
        model=name,
        model_type=name,
        architecture=name,
        stacks=stacks,
        num_parameters=num_parameters,
        tied_head=tied_head,
        sites=tuple(sites),
    )
