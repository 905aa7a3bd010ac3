import pytest
from peft import LoraConfig, get_peft_model

import tiny_models
from loratlas.errors import VerificationError
from loratlas.placement.placement import Placement, place
from loratlas.train.base import quiet
from loratlas.train.verify import verify


def wrapped(base, **fields):
    config = LoraConfig(**{"r": 4, "lora_alpha": 8, "fan_in_fan_out": True, **fields})
    with quiet():
        return get_peft_model(base.model, config)


def refusal(base, placement, **fields):
    model = wrapped(base, **fields)
    try:
        with pytest.raises(VerificationError) as caught:
            verify(model, placement)
    finally:
        model.unload()
    return str(caught.value)


def test_the_placement_itself_passes(base, anatomy):
    placement = place(anatomy, "attention", rank=4, alpha=8)
    model = wrapped(base, target_modules=["c_attn", "attn.c_proj"])
    verify(model, placement)
    model.unload()


def test_a_name_that_stands_in_two_blocks_is_caught(base, anatomy):
    placement = place(anatomy, "attention", rank=4, alpha=8)
    message = refusal(base, placement, target_modules=["c_attn", "c_proj"])
    assert "transformer.h.0.mlp.c_proj is adapted and should not be" in message
    # Three layers of rank 4 at 128 + 32 features more than the placement.
    extra = 3 * 4 * (128 + 32)
    count = placement.trainable_parameters
    assert f"{count + extra:,} trainable parameters instead of {count:,}" in message


def test_a_missing_site_a_rank_and_a_scale_are_caught(base, anatomy):
    placement = place(anatomy, "attention", rank=4, alpha=8)
    assert "attn.c_proj is not adapted" in refusal(base, placement, target_modules=["c_attn"])
    names = ["c_attn", "attn.c_proj"]
    message = refusal(base, placement, target_modules=names, r=2)
    assert "transformer.h.0.attn.c_attn has rank 2 instead of 4" in message
    message = refusal(base, placement, target_modules=names, lora_alpha=16)
    assert "transformer.h.0.attn.c_attn has scale 4.0 instead of 2.0" in message
    message = refusal(base, placement, target_modules=names, use_rslora=True)
    assert "has scale 4.0 instead of 2.0" in message


def test_a_rank_pattern_whose_order_decides_is_caught(base, anatomy):
    """PEFT takes the first match of a pattern: a general key before a special one hides it."""
    placement = place(
        anatomy,
        "attention.qkv - names(h.0.attn.c_attn):4 + names(h.0.attn.c_attn):2",
        alpha=8,
        rank=4,
    )
    message = refusal(
        base,
        placement,
        target_modules=["c_attn"],
        rank_pattern={"c_attn": 4, "h.0.attn.c_attn": 2},
    )
    assert "transformer.h.0.attn.c_attn has rank 4 instead of 2" in message


def test_many_differences_are_counted(base, anatomy):
    message = refusal(base, place(anatomy, "all", rank=4, alpha=8), target_modules=["c_attn"])
    assert message.endswith("and 5 more")


def adapted(family, rule, *, name="default", **options):
    anatomy = tiny_models.anatomy_of(family)
    placement = place(anatomy, rule, **options)
    with quiet():
        model = get_peft_model(tiny_models.fresh(family), placement.to_peft(), adapter_name=name)
    return model, placement


RULES = {
    "gpt2": "all | embedding",
    "llama": "all @ last(2) + head:2",
    "bert": "attention:2 + feed_forward:5",
    "t5": "all @ encoder:2 + cross_attention:3",
    "mixtral": "all:2 + router:1",
    "qwen3_moe": "attention:3 + feed_forward:2 + router:1",
}


# PEFT says that patterns of parameters are ignored, though they take effect.
@pytest.mark.filterwarnings("ignore:The following .* keys did not match any targeted module")
@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_every_family_passes_with_its_placement_and_no_other(family):
    model, placement = adapted(family, RULES[family], rank=4, scaling="rslora")
    verify(model, placement)
    fewer = Placement(
        anatomy=placement.anatomy, adapters=placement.adapters[:-1], scaling=placement.scaling
    )
    last = placement.adapters[-1].site.path
    with pytest.raises(VerificationError, match=f"{last} is adapted and should not be"):
        verify(model, fewer)


def test_a_parameter_of_an_embedding_is_the_embedding():
    anatomy = tiny_models.anatomy_of("llama")
    config = LoraConfig(r=4, target_modules=[], target_parameters=["embed_tokens.weight"])
    with quiet():
        model = get_peft_model(tiny_models.fresh("llama"), config)
    verify(model, place(anatomy, "embedding", rank=4, alpha=8))


def test_another_name_is_found_and_two_active_ones_are_told():
    model, placement = adapted("llama", "attention.q", name="mine")
    verify(model, placement)
    verify(model, placement, adapter_name="mine")
    with pytest.raises(VerificationError, match="q_proj is not adapted"):
        verify(model, placement, adapter_name="default")
    model.add_adapter("other", place(placement.anatomy, "attention.v").to_peft())
    verify(model, placement)  # there, and not active
    model.base_model.set_adapter(["mine", "other"])
    with pytest.raises(VerificationError, match="several adapters are active: mine, other"):
        verify(model, placement)
    with pytest.raises(VerificationError, match="the adapter other is active, too, at 3 sites"):
        verify(model, placement, adapter_name="mine")


@pytest.mark.filterwarnings("ignore:You are trying to modify a model with PEFT")
@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute")
def test_a_second_wrapping_is_caught():
    model, _ = adapted("llama", "attention.q")
    wanted = place(tiny_models.anatomy_of("llama"), "attention.v")
    for base in (model.get_base_model(), model):
        with quiet():
            twice = get_peft_model(base, wanted.to_peft())
        with pytest.raises(VerificationError, match=r"layers\.0\.self_attn\.q_proj is adapted and"):
            verify(twice, wanted)


def test_adapters_that_do_nothing_are_caught():
    model, placement = adapted("llama", "attention.q")
    model.base_model.disable_adapter_layers()
    with pytest.raises(
        VerificationError, match="q_proj is adapted, and the adapter default is swi"
    ):
        verify(model, placement, adapter_name="default")
    model.base_model.enable_adapter_layers()
    model.merge_adapter()
    with pytest.raises(VerificationError, match="q_proj is merged into its base"):
        verify(model, placement)
    model.unmerge_adapter()
    model.requires_grad_(False)
    with pytest.raises(
        VerificationError, match=r"0 trainable parameters instead of .* is_trainable"
    ):
        verify(model, placement)
    plain = tiny_models.fresh("llama")
    with pytest.raises(VerificationError, match="q_proj is not adapted"):
        verify(plain, placement)


def test_more_than_low_rank_factors_is_caught():
    anatomy = tiny_models.anatomy_of("llama")
    placement = place(anatomy, "attention.q", rank=4, alpha=8)
    for field in ({"use_dora": True}, {"modules_to_save": ["lm_head"]}):
        config = LoraConfig(r=4, target_modules=["q_proj"], **field)
        with quiet():
            model = get_peft_model(tiny_models.fresh("llama"), config)
        with pytest.raises(VerificationError, match="trainable parameters instead of 768"):
            verify(model, placement)
