"""What must be kept of a training by Trainer, so that it goes on as if it had never stopped?

Trainer reads optimiser, schedule and random states from a checkpoint where they are there; where
one is missing it trains on to other weights without a word. So a checkpoint that lacks one is an
error here, when it is written and when it is read. Trained tensors are kept under their own names
and read back all or none: PEFT's reader only warns of those that it misses.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from loratlas.errors import VerificationError
from loratlas.train.checkpoint import Keeper

TRAINER_STATE = "trainer_state.json"
_TENSORS, _COURSE = "trained.safetensors", "course.json"
_FILES = (_TENSORS, _COURSE, "optimizer.pt", "scheduler.pt", "rng_state.pth", TRAINER_STATE)


@dataclass(kw_only=True, slots=True)
class Course:
    """How a trial went so far.

    Attributes:
        micro_batch: rows of a micro-batch.
        losses: of every optimiser step, nats per scored token.
        seconds: wall time of every optimiser step.
    """

    micro_batch: int
    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """A checkpoint to go on from.

    Attributes:
        step: optimiser steps done.
        folder: its files.
        course: how the trial went until then.
    """

    step: int
    folder: Path
    course: Course


def newest(keeper: Keeper | None) -> Kept | None:
    """Return what a training goes on from, None where it begins.

    Raises:
        VerificationError: the checkpoint lacks a file.
    """
    found = None if keeper is None else keeper.checkpoints.newest()
    if found is None:
        return None
    step, folder = found
    require_whole(folder)
    course = Course(**json.loads((folder / _COURSE).read_text()))
    return Kept(step=step, folder=folder, course=course)


def require_whole(folder: Path) -> None:
    """Raise unless a checkpoint holds every file that decides the steps to come."""
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        raise VerificationError(f"{folder}: the checkpoint lacks {', '.join(missing)}")


def write_own(model: Any, course: Course, folder: Path) -> None:
    """Write what is trained, and how it went; the rest of a checkpoint is Trainer's."""
    save_file(trained_tensors(model), folder / _TENSORS)
    (folder / _COURSE).write_text(json.dumps(asdict(course)))


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Return the trained tensors of a checkpoint."""
    return load_file(folder / _TENSORS)


def trained_tensors(model: Any) -> dict[str, torch.Tensor]:
    """Return copies of all parameters that are trained, by name, on the CPU."""
    return {
        name: parameter.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, parameter in _trained(model).items()
    }


def put_back(model: Any, tensors: Mapping[str, torch.Tensor]) -> None:
    """Give every parameter that is trained an earlier value.

    Raises:
        VerificationError: the values are not of exactly the parameters that are trained.
    """
    parameters = _trained(model)
    wrong = sorted(
        name
        for name in parameters.keys() | tensors.keys()
        if _shape(parameters.get(name)) != _shape(tensors.get(name))
    )
    if wrong:
        raise VerificationError(
            "the checkpoint does not hold what is trained: "
            f"{len(wrong)} tensors are missing, unknown or of another shape, first {wrong[0]}"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])


def _trained(model: Any) -> dict[str, torch.nn.Parameter]:
    return {name: each for name, each in model.named_parameters() if each.requires_grad}


def _shape(tensor: torch.Tensor | None) -> tuple[torch.Size, torch.dtype] | None:
    return None if tensor is None else (tensor.shape, tensor.dtype)
