"""Which engine trains each trial of a run, and with what: decided once, before any of them runs."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from loratlas.study.options import RunOptions
from loratlas.study.planning import Rows, estimator_of, workload_of
from loratlas.study.request import Request
from loratlas.study.resolve import ResolvedPlacement, not_movable, refused
from loratlas.study.room import BYTES_PER_PARAMETER, Room, bytes_per_token, free_bytes, room_for
from loratlas.train.base import quiet
from loratlas.train.packed.elastic import elastic_bytes
from loratlas.train.packed.opening import PackedBase, open_base, why_not
from loratlas.train.prefix import PrefixCache

ASKED_FOR = "the study asks for the reference engine"
"""The one reason that a person knows without being told."""
_FOLDER = "prefix"


@dataclass(frozen=True, kw_only=True)
class Engines:
    """What trials are trained with.

    Attributes:
        packed: the base taken apart, None where nothing can be packed.
        reasons: why trials of a placement are not packed, by its digest; None where they are.
        room: how many go together.
    """

    packed: PackedBase | None
    reasons: Mapping[str, str | None]
    room: Room


def choose_engines(request: Request, options: RunOptions) -> Engines:
    """Decide for each placement of a study which engine serves it."""
    base = request.base
    found: PackedBase | str = ASKED_FOR
    if request.study.engine == "auto":
        with quiet():  # what a model says of its own loss is no news of the run
            found = open_base(base, request.anatomy, request.data.train.rows, request.data.masking)
    reasons = {
        resolved.digest: found if isinstance(found, str) else why_not(base, resolved.placement)
        for resolved in request.placements
    }
    _require_movable(request, reasons)
    return Engines(
        packed=None if isinstance(found, str) else found,
        reasons=reasons,
        room=_room(request, options),
    )


def _require_movable(request: Request, reasons: Mapping[str, str | None]) -> None:
    """Refuse placements that move where only the reference engine could train them.

    What is seen without trying `study.learning` has refused before.

    Raises:
        StudyError: a placement has a policy, and the packed engine does not serve it.
    """
    for resolved in request.placements:
        reason = reasons[resolved.digest]
        if resolved.moving is not None and reason is not None:
            raise refused(request.study, resolved.name, not_movable(reason))


@contextmanager
def prefix_for(
    request: Request, room: Room, options: RunOptions, folder: Path
) -> Iterator[PrefixCache]:
    """Keep hidden states of the frozen base while a run goes on; no file of them is left."""
    base = request.base
    memory = room.prefix_bytes if options.prefix_memory is None else options.prefix_memory
    parameter = next(base.model.parameters())
    cache = PrefixCache(
        base_digest=base.digest,
        dtype=parameter.dtype,
        memory_limit=memory,
        file_limit=options.prefix_file,
        # Also where no file is asked for: one that a killed run left is taken off the disk.
        folder=folder / _FOLDER,
        numerics=base.device.type,
    )
    try:
        yield cache
    finally:
        cache.close()
        # The lock of the run folder keeps other processes from it.
        shutil.rmtree(folder / _FOLDER, ignore_errors=True)


def _room(request: Request, options: RunOptions) -> Room:
    """Return how many trials go together, by the plan of the dearest placement."""
    study, base, rows = request.study, request.base, request.data.train.rows
    placements = [resolved.placement for resolved in request.placements]
    workload = workload_of(study, Rows(train=rows, basis="", model=study.model), {})
    return room_for(
        rows,
        study.training,
        bytes_per_trial=max(map(_adapter_bytes, request.placements)),
        free=free_bytes(base.device),
        free_host=free_bytes(torch.device("cpu")),
        device=base.device,
        bytes_per_token=bytes_per_token(
            estimator_of(study, request.anatomy, workload),
            placements,
            workload.rows * workload.tokens,
            base.model,
        ),
        most=options.trials_per_pack,
    )


def _adapter_bytes(resolved: ResolvedPlacement) -> int:
    """Return what the adapters of a trial take, with their gradient and the optimiser's state."""
    moving = resolved.moving
    if moving is None:
        return BYTES_PER_PARAMETER * resolved.placement.trainable_parameters
    return elastic_bytes(moving.start, moving.capacity, moving.spec.form)
