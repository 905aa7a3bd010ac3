"""Tiny bases with rows, and how one trial on them goes by the reference engine."""

import itertools
import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import families
from loratlas.anatomy.read import read
from loratlas.anatomy.sites import Anatomy
from loratlas.data.batches import prepare
from loratlas.data.masked import Masking
from loratlas.data.rows import TokenizedRow
from loratlas.data.spec import DataSpec
from loratlas.placement.placement import place
from loratlas.train.adapters import new_adapters
from loratlas.train.base import Base, load_base
from loratlas.train.checkpoint import Checkpoints, Keeper, StopRequested
from loratlas.train.outcome import Fit
from loratlas.train.reference import fit
from loratlas.train.trial import ModelRef, TrainingSpec

SEED = 3
NEVER = math.inf


@dataclass(frozen=True, kw_only=True)
class Trained:
    """How a trial went.

    Attributes:
        fit: None where it was stopped.
        tensors: all that is trained, by name.
        heard: what was told after each step.
    """

    fit: Fit | None
    tensors: dict[str, torch.Tensor]
    heard: list[tuple[int, int]]

    def same_bits(self, other: "Trained") -> bool:
        return (
            self.fit.losses == other.fit.losses
            and self.tensors.keys() == other.tensors.keys()
            and all(torch.equal(value, other.tensors[name]) for name, value in self.tensors.items())
        )

    def distance(self, other: "Trained") -> float:
        """Relative L2 of all that is trained."""
        pairs = [
            (value.double(), other.tensors[name].double()) for name, value in self.tensors.items()
        ]
        difference = sum(float((a - b).square().sum()) for a, b in pairs)
        return math.sqrt(difference / sum(float(b.square().sum()) for _, b in pairs))


@dataclass(frozen=True, kw_only=True)
class Case:
    """A base, and the rows that trials on it read."""

    base: Base
    anatomy: Anatomy
    rows: tuple[TokenizedRow, ...]
    masking: Masking | None

    def train(
        self,
        training: TrainingSpec,
        *,
        rule: str = "all",
        dropout: float = 0.0,
        keeper: Keeper | None = None,
    ) -> Trained:
        """Train new adapters, as a process does that has drawn other numbers before."""
        draw_other_numbers()
        heard: list[tuple[int, int]] = []
        placement = place(self.anatomy, rule, rank=4, alpha=8)
        with new_adapters(self.base, placement, seed=SEED, dropout=dropout) as model:
            try:
                found = fit(
                    self.base, model, self.rows, training,
                    learning_rate=1e-2, seed=SEED, masking=self.masking,
                    on_step=lambda *told: heard.append(told), keeper=keeper,
                )  # fmt: skip
            except StopRequested:
                found = None
            tensors = {
                name: parameter.detach().clone()
                for name, parameter in model.named_parameters()
                if parameter.requires_grad
            }
        return Trained(fit=found, tensors=tensors, heard=heard)


_numbers: Iterator[int] = itertools.count(1000)


def draw_other_numbers() -> None:
    seed = next(_numbers)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (Trainer keeps this state, too)
    torch.manual_seed(seed)


def keeper(folder: Path, *, stop_after: int | None = None, every_seconds: float = NEVER) -> Keeper:
    """Return what keeps a trial; it is asked to stop after some steps of this process."""
    asked = itertools.count(1)
    return Keeper(
        checkpoints=Checkpoints(folder, {"trial": 1}),
        every_seconds=every_seconds,
        stop=lambda: next(asked) == stop_after,
    )


def case_of(family: str, folder: Path, *, num_rows: int = 13, dropout: float | None = 0.0) -> Case:
    """Return a language model with prompts and answers of many lengths."""
    lines = (
        {
            "prompt": " ".join(["Where is", *["old"] * (n % 4), f"house {n}?"]),
            "completion": " In " + ", ".join(["Oslo", "Rome", "Lima"][: n % 3 + 1]) + f", {n * 7}.",
        }
        for n in range(num_rows + 10)
    )
    return _case(family, folder, lines, "prompt_completion", num_rows, dropout)


def classifier(family: str, folder: Path, *, num_rows: int = 13) -> Case:
    """Return a classifier whose head is new, with rows of three classes."""
    lines = (
        {"text": f"House {n} is number {n * n}.", "label": ("bad", "good", "so-so")[n % 3]}
        for n in range(num_rows + 17)
    )
    return _case(family, folder, lines, "classification", num_rows, 0.0, num_labels=3)


def _case(family, folder, lines, data_format, num_rows, dropout, **ref) -> Case:
    families.write(family, folder)
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    base = load_base(
        ModelRef(name=str(folder), **ref),
        dtype="fp32",
        base_dropout=dropout,
        device=torch.device("cpu"),
    )
    spec = DataSpec(source="rows.jsonl", format=data_format, train=num_rows, test=5, max_length=40)
    data = prepare(spec, base.tokenizer, root=folder, task=base.task)
    return Case(
        base=base,
        anatomy=read(str(folder)),
        rows=data.train.rows,
        masking=data.masking,
    )
