"""What many tests need: a tiny model on disk, data for it, a study file, and the no-skip flag."""

import os
from pathlib import Path

import pytest

import tiny_study

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# As `loratlas run` sets it: before torch is imported.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
# What a test replaces in its own process is not replaced in another one; where the processes are
# the subject, a test asks for them.
os.environ.setdefault("LORATLAS_WORKERS", "0")
# The models of the tests are so small that a second thread costs more than it gives.
os.environ.setdefault("OMP_NUM_THREADS", "1")


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


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """A GPT-2 of 3 layers and width 32 with random weights and its own tokenizer, on disk."""
    folder = tmp_path_factory.mktemp("tiny-gpt2")
    tiny_study.write_model(folder)
    return folder


@pytest.fixture
def study_folder(tmp_path, tiny_folder) -> Path:
    """A folder with data and a study.yaml: 2 placements, 2 seeds, 3 steps a trial."""
    tiny_study.write_study(tmp_path, str(tiny_folder))
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
