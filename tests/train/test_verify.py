import pytest
from peft import LoraConfig, get_peft_model

from loratlas.errors import VerificationError
from loratlas.placement.placement import place
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
