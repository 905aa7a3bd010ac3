from collections.abc import Callable
from pathlib import Path

import pytest

from loratlas.errors import RequestError
from loratlas.study.spec import parse_study

EXAMPLE = """\
# yaml-language-server: $schema=loratlas.schema.json
name: where-on-alpaca
model: microsoft/DialoGPT-medium
data:
  source: tatsu-lab/alpaca
  format: alpaca
  train: 1000
  validation: 200
  test: 500
  loss_on: response
  max_length: 256
placements:
  full: all
  attention: attention
  upper_half: all @ layers(50%..)
  two_ranks: attention:16 + feed_forward:4
  as_published: {rule: "names(c_attn, c_proj)", match: none}
  parts_form: {parts: [{rule: attention, rank: 16}, {rule: feed_forward, rank: 4}]}
baseline: full
lora: {rank: 16, alpha: 32, scaling: constant, dropout: 0.0}
match: parameters
training:
  epochs: 3
  batch: 4
  accumulation: 1
  learning_rate: [1e-4, 2e-4, 4e-4]
  scheduler: cosine
  warmup: 0.1
  weight_decay: 0.01
  clip: 1.0
  base_dropout: 0
  dtype: fp32
seeds: 6
sweep_seeds: 2
measures: [loss]
margin: 5%
"""


def edited(*changes: tuple[str, str]) -> str:
    text = EXAMPLE
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    return text


@pytest.fixture
def example() -> str:
    return EXAMPLE


@pytest.fixture
def edit() -> Callable[..., str]:
    return edited


@pytest.fixture
def refusal() -> Callable[..., str]:
    """Returns the message that the example gets after replacements."""

    def read(*changes: tuple[str, str]) -> str:
        with pytest.raises(RequestError) as caught:
            parse_study(edited(*changes), Path("study.yaml"))
        return str(caught.value)

    return read
