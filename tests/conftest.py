"""What many tests need: a tiny model on disk, data for it, a study file, and the no-skip flag."""

import json
import os
import random
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# As `loratlas run` sets it: before torch is imported.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
# The models of the tests are so small that a second thread costs more than it gives.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_NAMES = ["Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana"]
_PLACES = ["Oslo", "Rome", "Lima", "Cairo", "Delhi", "Quito"]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """With LORATLAS_NO_SKIP set, a test that skips has failed: the machine should have it all."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("LORATLAS_NO_SKIP"):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may skip: {report.longrepr}"


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory, monkeypatch):
    """Keep the anatomy cache of a test away from the person's own."""
    monkeypatch.setenv("LORATLAS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def rows(seed: int, count: int) -> list[dict[str, str]]:
    """Return prompt/completion rows without repeats."""
    chance = random.Random(seed)
    return [
        {
            "prompt": f"Where does {chance.choice(_NAMES)} number {index} live?",
            "completion": f" In {chance.choice(_PLACES)}, since {1900 + chance.randrange(99)}.",
        }
        for index in range(count)
    ]


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """A GPT-2 of 3 layers and width 32 with random weights and its own tokenizer, on disk."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-gpt2")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = [row["prompt"] + row["completion"] for row in rows(0, 200)]
    tokenizer.train_from_iterator(text, trainer)
    end = "<|endoftext|>"
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=end, eos_token=end, pad_token=end
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=3,
        n_embd=32,
        n_head=4,
        n_positions=64,
        vocab_size=400,
        bos_token_id=0,
        eos_token_id=0,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def study_folder(tmp_path, tiny_folder) -> Path:
    """A folder with data and a study.yaml: 2 placements, 2 seeds, 3 steps a trial."""
    lines = [json.dumps(row) for row in rows(1, 60)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "study.yaml").write_text(
        f"""\
name: tiny
model: {tiny_folder}
data:
  source: rows.jsonl
  format: prompt_completion
  train: 32
  validation: 8
  test: 12
  max_length: 48
placements:
  full: all
  attention: attention
baseline: full
lora: {{rank: 2, alpha: 4}}
training: {{steps: 3, batch: 4, learning_rate: 1e-2}}
seeds: 2
"""
    )
    return tmp_path


@pytest.fixture(scope="module")
def base(tiny_folder):
    """The tiny model, loaded and frozen."""
    import torch

    from loratlas.train.base import load_base
    from loratlas.train.trial import ModelRef

    return load_base(
        ModelRef(name=str(tiny_folder)), dtype="fp32", base_dropout=0.0, device=torch.device("cpu")
    )


@pytest.fixture(scope="session")
def anatomy(tiny_folder):
    """The tiny model's anatomy."""
    from loratlas.anatomy.read import read

    return read(str(tiny_folder))


@pytest.fixture
def prepared(base, study_folder):
    """The rows of the tiny study, tokenised."""
    from loratlas.data.batches import prepare
    from loratlas.data.spec import DataSpec

    spec = DataSpec(
        source="rows.jsonl",
        format="prompt_completion",
        train=32,
        validation=8,
        test=12,
        max_length=48,
    )
    return prepare(spec, base.tokenizer, root=study_folder)


@pytest.fixture(params=["packed", "reference"])
def engine(request):
    """What any run promises is tested with each engine."""
    from engines import Engine

    with pytest.MonkeyPatch.context() as monkeypatch:
        yield Engine(request.param, monkeypatch)
