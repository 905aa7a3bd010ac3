"""What do both sides of a benchmark carry out, and how is each told?"""

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from materials import (
    GPT2_MEDIUM,
    Given,
    alpaca_rows,
    copy_tokenizer,
    drawn_rows,
    write_rows,
    write_tokenizer,
)
from processes import run_process

from loratlas.anatomy.read import read
from loratlas.placement.placement import place

EVAL_BATCH = 16
"""Rows that the peer scores at once, as loratlas does."""
_MATERIALS = Path(__file__).with_name("materials.py")
_SCHEDULE = {"scheduler": "cosine", "warmup": 0.1, "weight_decay": 0.01, "clip": 1.0}

Key = tuple[str, float, int]
"""A trial: placement, learning rate, seed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What both sides carry out.

    Attributes:
        placements: rules by name.
        seeds: how many; they count from 0.
        epochs: passes over the training rows.
        batch: rows of an optimiser step.
        micro_batch: rows that the peer takes at once, the rest being accumulated; one is faster on
            a CPU, where four rows are padded by 23% of their tokens even when grouped by length.
        autocast: whether the peer's Trainer computes under bf16 autocast.
        compile: whether the peer's Trainer compiles the model.
        dtype: of the frozen base.
        stored: type of the weights in the model's file.
        environment: variables that both sides run with.
        peer_seeds: seeds that the peer runs, whose time then stands for the others; None is all.
    """

    shape: Mapping[str, Any] = field(default_factory=lambda: GPT2_MEDIUM)
    placements: Mapping[str, str]
    seeds: int = 1
    learning_rates: tuple[float, ...] = (2e-4,)
    train_rows: int = 64
    test_rows: int = 16
    max_length: int = 256
    epochs: int = 1
    rank: int = 16
    alpha: int = 32
    batch: int = 4
    micro_batch: int = 1
    autocast: bool = False
    compile: bool = False
    dtype: str = "fp32"
    stored: str = "fp32"
    device: str = "cpu"
    environment: Mapping[str, str] = field(default_factory=dict)
    peer_seeds: int | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """Rows by split; where rates are compared, validation rows choose among them."""
        choosing = {"validation": self.test_rows} if len(self.learning_rates) > 1 else {}
        return {"train": self.train_rows, **choosing, "test": self.test_rows}

    @property
    def trials(self) -> list[Key]:
        """The trials, seed by seed."""
        found = product(range(self.seeds), self.placements, self.learning_rates)
        return [(placement, rate, seed) for seed, placement, rate in found]

    @property
    def steps(self) -> int:
        """Optimiser steps of a trial."""
        return self.epochs * math.ceil(self.train_rows / self.batch)


@dataclass(frozen=True, kw_only=True, slots=True)
class Materials:
    """Where the model and the rows of a work lie."""

    model: Path
    rows: Mapping[str, Path]


def prepare(work: Work, folder: Path, given: Given | None) -> Materials:
    """Write model, tokenizer and rows of a work into a folder.

    Raises:
        MaterialsError: the files that were given cannot serve.
        SideError: the model could not be written.
    """
    model, shape = folder / "model", folder / "shape.json"
    shape.write_text(json.dumps(dict(work.shape)), encoding="utf-8")
    command = [sys.executable, _MATERIALS, shape, model, work.stored]
    run_process("the model", command, folder, threads=os.cpu_count() or 1)
    if given is None:
        write_tokenizer(int(work.shape["vocab_size"]), model)
    else:
        copy_tokenizer(given.tokenizer, model)
    return with_rows(work, model, folder, given)


def with_rows(work: Work, model: Path, folder: Path, given: Given | None) -> Materials:
    """Write the rows of a work beside a model that is there.

    Raises:
        MaterialsError: the file that was given cannot serve.
    """
    count = sum(work.sizes.values())
    if given is None:
        rows = drawn_rows(count, int(work.shape["vocab_size"]), work.max_length)
    else:
        rows = alpaca_rows(given.rows, count)
    return Materials(model=model, rows=write_rows(rows, work.sizes, folder))


def study_of(work: Work, materials: Materials) -> dict[str, Any]:
    """Return the study file of a work."""
    return {
        "name": "benchmark",
        "model": str(materials.model),
        "device": work.device,
        "data": {
            "source": {split: str(file) for split, file in materials.rows.items()},
            "format": "prompt_completion",
            "max_length": work.max_length,
        },
        "placements": dict(work.placements),
        "lora": {"rank": work.rank, "alpha": work.alpha},
        "match": "none",
        "training": {
            "epochs": work.epochs,
            "batch": work.batch,
            "learning_rate": list(work.learning_rates),
            "dtype": work.dtype,
            **_SCHEDULE,
        },
        "seeds": list(range(work.seeds)),
        "measures": ["loss"],
    }


def peer_configs(work: Work, materials: Materials, folder: Path) -> Iterator[tuple[Key, Any]]:
    """Yield what `peer.py` is told of each trial that it runs."""
    anatomy = read(materials.model, cache=False)
    for name, rate, seed in work.trials:
        if work.peer_seeds is not None and seed >= work.peer_seeds:
            continue
        placed = place(anatomy, work.placements[name], rank=work.rank, alpha=work.alpha)
        yield (
            (name, rate, seed),
            {
                "model": str(materials.model),
                "rows": {split: str(file) for split, file in materials.rows.items()},
                "sites": placed.to_json()["placement"],
                "adapter": str(folder / "adapter"),
                "max_length": work.max_length,
                "micro_batch": work.micro_batch,
                "accumulation": work.batch // work.micro_batch,
                "eval_batch": EVAL_BATCH,
                "epochs": work.epochs,
                "learning_rate": rate,
                "seed": seed,
                "dtype": work.dtype,
                "device": work.device,
                "autocast": work.autocast,
                "compile": work.compile,
                **_SCHEDULE,
            },
        )
