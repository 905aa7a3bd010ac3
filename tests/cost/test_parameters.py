"""Parameter counts and shares, held against the founding study's figures."""

import pytest

import anatomies
from loratlas.cost.parameters import (
    adapter_bytes,
    percent_saved_against_baseline,
    percent_saved_against_full,
    trainable_parameters,
    trainable_percent,
)
from loratlas.errors import RequestError
from loratlas.placement.placement import place

# DialoGPT-medium: 50257 and 1024 positions of 1024, 24 blocks of 12,596,224, a last norm of 2048.
BASE = (50257 + 1024) * 1024 + 24 * 12_596_224 + 2048


def test_the_figures_of_the_founding_study():
    anatomy = anatomies.gpt2()
    assert anatomy.num_parameters == BASE
    full = trainable_parameters(place(anatomy, "all", rank=16))
    attention = trainable_parameters(place(anatomy, "names(c_attn, c_proj)", rank=16))
    assert round(trainable_percent(full, BASE), 2) == 1.74
    assert round(percent_saved_against_full(full, BASE), 2) == 98.26
    assert round(percent_saved_against_baseline(attention, full), 2) == 31.25


def test_shares_of_round_numbers():
    assert trainable_percent(1, 3) == 25
    assert percent_saved_against_full(1, 3) == 75
    assert percent_saved_against_baseline(3, 2) == -50


@pytest.mark.parametrize(("dtype", "size"), [("fp32", 4), ("bf16", 2), ("fp16", 2)])
def test_bytes_of_an_adapter(dtype, size):
    assert adapter_bytes(6_291_456, dtype=dtype) == 6_291_456 * size


def test_an_unknown_type_is_told():
    with pytest.raises(RequestError, match=r"unknown dtype 'fp23' \(did you mean fp32\?\)"):
        adapter_bytes(1, dtype="fp23")
