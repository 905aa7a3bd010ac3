"""The facts that are copied from PEFT are those of the PEFT that is installed."""

import inspect

from peft.tuners import tuners_utils
from peft.utils import constants
from peft.utils import transformers_weight_conversion as conversion

from loratlas.placement import peft_tables


def test_default_targets():
    theirs = constants.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
    ours = peft_tables.DEFAULT_TARGETS
    assert {n: t if isinstance(t, str) else list(t) for n, t in ours.items()} == theirs


def test_renamed_experts():
    theirs = {
        name: conversion._MOE_TARGET_MODULE_MAPPING[base]
        for name, base in conversion._MODEL_TO_CONVERSION_PATTERN.items()
        if base in conversion._MOE_TARGET_MODULE_MAPPING
        and conversion.get_checkpoint_conversion_mapping(name) is not None
    }
    assert theirs == peft_tables.RENAMED_EXPERTS
    assert {frozenset(table) for table in conversion._MOE_FUSED_TARGETS.values()} == {
        frozenset({peft_tables.FUSED})
    }


def test_limits():
    assert constants.MIN_TARGET_MODULES_FOR_OPTIMIZATION == peft_tables.SHORTENED_FROM
    source = inspect.getsource(tuners_utils._check_lora_target_modules_mamba)
    for name in peft_tables.MAMBA_TYPES | peft_tables.MAMBA_REFUSED:
        assert f'"{name}"' in source
    assert peft_tables.mamba_refused(["a.out_proj", "a.in_proj"], "mamba") == ["a.out_proj"]
    assert peft_tables.mamba_refused(["a.out_proj"], "llama") == []
