"""The benchmarks as modules, a tiny instance of a work, and both sides of one in here."""

import contextlib
import io
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmark_modules import load_benchmark

# In the order in which they import each other.
_MODULES = (
    "materials", "processes", "machine", "work", "sides", "side_by_side", "peer", "study",
    "layer_ranges", "single", "bf16", "cost_of_a_study", "gpu", "studies", "scoring_cost",
    "learned", "chosen_arms", "nulls", "scorers", "teachers", "planted",
)  # fmt: skip
TINY = {
    "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 32, "n_layer": 12,
    "n_head": 4, "n_positions": 64, "vocab_size": 300, "bos_token_id": 299, "eos_token_id": 299,
}  # fmt: skip


@pytest.fixture(scope="session")
def benchmarks():
    """The modules by name."""
    return SimpleNamespace(**{name: load_benchmark(name) for name in _MODULES})


@pytest.fixture(scope="session")
def tiny():
    """Makes a work tiny: few and short rows, narrow layers."""

    def shrink(work, **changes):
        sizes = {"train_rows": 6, "test_rows": 4, "max_length": 48, "rank": 2, "alpha": 4}
        return replace(work, shape=TINY, **{**sizes, **changes})

    return shrink


@pytest.fixture(scope="session")
def materials_of(benchmarks, tmp_path_factory):
    """Writes the model and rows of a work in this process; returns where they lie."""

    def write(work):
        folder = tmp_path_factory.mktemp("materials")
        model = folder / "model"
        benchmarks.materials.write_model(work.shape, model, work.stored)
        benchmarks.materials.write_tokenizer(work.shape["vocab_size"], model)
        return benchmarks.work.with_rows(work, model, folder, None)

    return write


@pytest.fixture
def in_process(benchmarks, monkeypatch):
    """Runs what both sides would start as processes in this one; returns what was run."""
    commands = []

    def run_process(name, command, folder, *, threads, variables=None):
        commands.append(name)
        said, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors):
            status = _run(benchmarks, [str(part) for part in command])
        (folder / "stdout.txt").write_text(said.getvalue())
        if status:
            raise benchmarks.processes.SideError(
                f"{name} ended with status {status}:\n{errors.getvalue()}"
            )
        return benchmarks.processes.Process(seconds=1.0, peak_bytes=2**30)

    for module in (benchmarks.work, benchmarks.sides, benchmarks.cost_of_a_study):
        monkeypatch.setattr(module, "run_process", run_process)
    return commands


def _run(benchmarks, command):
    """Run a command in this process; return its status."""
    from loratlas.cli.main import main

    assert command[0] == sys.executable
    script, arguments = Path(command[1]).name, command[2:]
    if script in ("peer.py", "materials.py"):
        getattr(benchmarks, script.removesuffix(".py")).main(arguments)
        return 0
    assert command[1:3] == ["-m", "loratlas.cli.main"]
    with pytest.raises(SystemExit) as end:
        main(command[3:])
    return end.value.code or 0
