from pathlib import Path

import pytest
import torch

from loratlas.anatomy.read import read
from loratlas.data.batches import prepare
from loratlas.data.spec import DataSpec
from loratlas.train.base import load_base
from loratlas.train.trial import ModelRef


@pytest.fixture(scope="module")
def base(tiny_folder):
    return load_base(
        ModelRef(name=str(tiny_folder)), dtype="fp32", base_dropout=0.0, device=torch.device("cpu")
    )


@pytest.fixture(scope="session")
def anatomy(tiny_folder):
    return read(str(tiny_folder))


@pytest.fixture
def prepared(base, study_folder: Path):
    spec = DataSpec(
        source="rows.jsonl",
        format="prompt_completion",
        train=32,
        validation=8,
        test=12,
        max_length=48,
    )
    return prepare(spec, base.tokenizer, root=study_folder)
