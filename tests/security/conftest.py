"""Run folders as somebody else could hand them over."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loratlas.study.records import PlacementRecord, TrialRecord
from loratlas.study.store import FILE_NAME, Store

ADAPTER = "adapters/full-lr0.001-seed0-00000000"


class Bomb:
    """Once unpickled, it has written a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


class Said:
    """A listener that keeps the sentences."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def begin(self, what: str, num_steps: int) -> None: ...

    def advance(self, num_steps: int = 1) -> None: ...

    def end(self) -> None: ...


@pytest.fixture
def run_folder(tmp_path) -> Path:
    """A run of one trial that is done, with an adapter that nobody has looked at."""
    return make_run(tmp_path / "run")


@pytest.fixture
def make(tmp_path) -> Callable[..., Path]:
    """Makes a run folder whose trial says what is given."""
    return lambda **changes: make_run(tmp_path / "made", **changes)


def make_run(folder: Path, *, model: dict[str, Any] | None = None, **changes: Any) -> Path:
    folder.mkdir()
    store = Store(folder / FILE_NAME, writable=True)
    store.set_placements([_PLACEMENT])
    trial = {"adapter": ADAPTER, **_TRIAL, **changes}
    store.add_trial(TrialRecord(**trial), {}, {})
    store.set_meta("name", "tiny")
    store.set_meta("num_trials", 1)
    store.set_meta("chosen", {"full": 1e-3})
    store.set_meta("study", {"model": model or {"name": "demo:gpt2"}, "training": {}})
    store.close()
    return fill(folder)


def fill(folder: Path) -> Path:
    """Write what stands beside the store."""
    folder.mkdir(exist_ok=True)
    (folder / "study.yaml").write_text("name: tiny\n")
    (folder / ADAPTER).mkdir(parents=True)
    (folder / ADAPTER / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    (folder / ADAPTER / "adapter_model.safetensors").write_bytes(b"not looked at")
    return folder


_PLACEMENT = PlacementRecord(
    name="full",
    digest="p",
    rule="all",
    trainable_parameters=512,
    matched_to=None,
    families={},
    adapters=[],
    warnings=[],
)
_TRIAL: dict[str, Any] = {
    "digest": "t",
    "placement_digest": "p",
    "learning_rate": 1e-3,
    "seed": 0,
    "status": "done",
    "engine": "reference",
}
