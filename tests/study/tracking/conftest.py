import os
from pathlib import Path

import numpy as np
import pytest

from loratlas.measure.scores import SplitScore
from loratlas.study.records import PlacementRecord, TrialRecord
from loratlas.study.spec import StudySpec, parse_study
from loratlas.study.store import FILE_NAME, Store
from loratlas.train.outcome import Probe

STUDY = """\
name: tiny
model: demo:gpt2
data: {source: demo:facts, format: prompt_completion}
placements: {full: all, attention: attention, everything: all}
track: [TRACK]
"""
OF_TRACKERS = ("WANDB", "MLFLOW", "TENSORBOARD", "TRACKIO", "HF_TOKEN")


@pytest.fixture(scope="module", autouse=True)
def no_trackers_of_a_person(tmp_path_factory):
    """Keeps tests from what a person has set, and from a person's home."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(OF_TRACKERS)]:
            patch.delenv(name)
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield


def tracked_study(*names: str) -> StudySpec:
    return parse_study(STUDY.replace("TRACK", ", ".join(names)), Path("study.yaml"))


def score(*nll: float) -> SplitScore:
    count = len(nll)
    return SplitScore(
        row=np.arange(count),
        nll=np.array(nll),
        num_tokens=np.full(count, 4),
        num_bytes=np.full(count, 16),
        num_correct=np.arange(count),
    )


def placement(name: str, digest: str) -> PlacementRecord:
    return PlacementRecord(
        name=name,
        digest=digest,
        rule=name,
        trainable_parameters=512,
        matched_to=None,
        families={},
        adapters=[],
        warnings=[],
    )


DONE = TrialRecord(
    digest="aaa",
    placement_digest="p-full",
    learning_rate=1e-3,
    seed=7,
    status="done",
    engine="reference",
    seconds=1.5,
    losses=[3.5, 2.25, 2.0 + 1e-9],
)
DIVERGED = TrialRecord(
    digest="bbb",
    placement_digest="p-attention",
    learning_rate=10.0,
    seed=0,
    status="diverged",
    engine="reference",
    attempts=2,
    error="diverged: the training loss is nan at step 2 of 3",
)
SCORES = {"validation": score(4.0, 8.0), "test": score(2.5, 3.0, 7.125)}
PROBE = Probe(
    seconds_per_step=0.25,
    tokens_per_second=512.5,
    peak_memory_bytes=None,
    num_steps=6,
    engine="reference",
)


def filled_store(folder: Path) -> Store:
    """A store with a trial that is done and one that diverged."""
    folder.mkdir(exist_ok=True)
    store = Store(folder / FILE_NAME, writable=True)
    store.set_placements(
        [
            placement("full", "p-full"),
            placement("attention", "p-attention"),
            placement("everything", "p-full"),
        ]
    )
    store.set_probe("p-full", PROBE)
    store.add_trial(DONE, {}, SCORES)
    store.add_trial(DIVERGED, {}, {})
    return store


class Said:
    """A listener that keeps the sentences."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def begin(self, what: str, num_steps: int) -> None: ...

    def advance(self, num_steps: int = 1) -> None: ...

    def end(self) -> None: ...
