"""How many trials train together, and how many of their tokens go through the base at once?

Memory is asked of the machine, and what a trial needs of the plan. Where the plan knows no peak,
as on a GPU, the known part of it (what autograd keeps of a block without checkpointing) stands in;
should that be too little, the engine makes its passes smaller by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import psutil
import torch

from loratlas.cost.plan import Estimator
from loratlas.data.rows import TokenizedRow
from loratlas.placement.placement import Placement
from loratlas.train.trial import TrainingSpec

BYTES_PER_PARAMETER = 16
"""Of adapters that stand still: values, gradient and the two moments of AdamW, each in fp32."""
# Shares of the memory that is free once the base is loaded.
_FOR_ADAPTERS, _FOR_PASSES, _FOR_PREFIX = 0.2, 0.5, 0.15
# Matrix products gain nothing from more rows than this: see benchmarks/results.
_TOKENS_PER_PASS = {"cpu": 1024, "cuda": 32_768, "mps": 8_192}
_TOKENS_PER_STEP = {"cpu": 4_096, "cuda": 65_536, "mps": 16_384}
_MOST_TRIALS = 64
_FEWEST_TRIALS = 4
# Floats that autograd keeps of a token and block, in widths, without adapters' dropout and with it.
_KEPT_WIDTHS = 43.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """What a machine has room for.

    Attributes:
        trials: most trials of a pack.
        tokens_per_pass: most tokens that go through the base at once.
        prefix_bytes: bytes of the machine's own memory for hidden states of the frozen base.
        most: most trials of a pack, where a person says so.
    """

    trials: int
    tokens_per_pass: int
    prefix_bytes: int
    most: int | None = None


def free_bytes(device: torch.device) -> int:
    """Return the memory that is free on a device now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def room_for(
    rows: Sequence[TokenizedRow],
    training: TrainingSpec,
    *,
    bytes_per_trial: int,
    free: int,
    free_host: int,
    device: torch.device,
    bytes_per_token: float,
    most: int | None = None,
) -> Room:
    """Return how much of a study trains together.

    Args:
        rows: the training rows of the study.
        training: how they are trained.
        bytes_per_trial: what the adapters of a trial take at most, with all that follows them.
        free: bytes that are free on the device once the base is loaded.
        free_host: bytes that are free in the machine's own memory, where the prefix is kept.
        device: where trials run.
        bytes_per_token: what a training step keeps of a token.
        most: most trials of a pack, where a person says so.
    """
    mean = sum(row.num_read for row in rows) / len(rows)
    window = training.batch * training.accumulation
    by_memory = int(free * _FOR_ADAPTERS / bytes_per_trial)
    by_tokens = max(_FEWEST_TRIALS, round(_TOKENS_PER_STEP[device.type] / (window * mean)))
    tokens = int(free * _FOR_PASSES / bytes_per_token)
    return Room(
        trials=max(1, min(by_memory, by_tokens if most is None else most, most or _MOST_TRIALS)),
        tokens_per_pass=max(1, min(tokens, _TOKENS_PER_PASS[device.type])),
        prefix_bytes=int(free_host * _FOR_PREFIX),
        most=most,
    )


def bytes_per_token(
    estimator: Estimator, placements: Sequence[Placement], tokens: int, model: object
) -> float:
    """Return what a training step keeps of a token, by the plan of the dearest placement.

    Args:
        estimator: says what a micro-batch costs.
        placements: those of the study.
        tokens: of the largest micro-batch, padding included.
        model: the transformers model, for what stands in where the plan knows no peak.
    """
    memories = [estimator.cost(placement).memory for placement in placements]
    known = [memory.step for memory in memories if memory is not None]
    if len(known) == len(memories):
        return max(known) / tokens
    config = model.config  # type: ignore[attr-defined]
    return float(_KEPT_WIDTHS * config.hidden_size * config.num_hidden_layers * 4)
