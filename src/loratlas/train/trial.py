"""What one trial is: the frozen specification that identifies a training run."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from loratlas.anatomy.sites import digest_of

Scheduler = Literal["linear", "cosine", "constant"]
Dtype = Literal["fp32", "bf16"]
SCHEDULERS: tuple[str, ...] = get_args(Scheduler)
DTYPES: tuple[str, ...] = get_args(Dtype)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRef:
    """Which base model a study fine-tunes."""

    name: str
    """Hub name, folder, or a bundled model such as ``demo:gpt2``."""
    revision: str | None = None
    """Revision of a hub model."""
    trust_remote_code: bool = False
    """Whether code that the model's repository brings may run."""
    num_labels: int | None = None
    """Classes of a sequence classification head; None leaves a language model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSpec:
    """How every trial of a study is trained; only the learning rate is swept."""

    epochs: float = 3.0
    """Passes over the training rows."""
    steps: int | None = None
    """Optimiser steps; when given, training ends there whatever `epochs` says."""
    batch: int = 8
    """Rows of one micro-batch."""
    accumulation: int = 1
    """Micro-batches of one optimiser step."""
    learning_rate: tuple[float, ...] = (2e-4,)
    """Peak learning rates; each placement is trained at every one of them."""
    scheduler: Scheduler = "cosine"
    """Shape of the learning rate after the warm-up."""
    warmup: float = 0.0
    """Warm-up: below 1 a share of all optimiser steps, from 1 on a number of steps."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay."""
    clip: float | None = 1.0
    """Largest norm of a trial's gradient; None does not clip."""
    base_dropout: float | None = 0.0
    """Dropout of the frozen base; None keeps what its configuration says."""
    dtype: Dtype = "fp32"
    """Type of the frozen base; adapters and optimiser are always fp32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialSpec:
    """One training run. Two trials with equal digests give the same numbers on one machine.

    Attributes:
        base_digest: SHA-256 over the base model's configuration and weights.
        data_digest: SHA-256 over the tokenised rows of every split.
        placement_digest: digest of the resolved placement (sites, ranks, scales).
        learning_rate: the peak rate of this trial.
        seed: the seed of row order, initial adapters and dropout.
        lora_dropout: dropout on the adapters' input.
        training: everything else about the training, learning rates left out.
    """

    base_digest: str
    data_digest: str
    placement_digest: str
    learning_rate: float
    seed: int
    lora_dropout: float
    training: TrainingSpec

    def to_json(self) -> dict[str, Any]:
        """Return the specification as plain data; the swept rates are not part of it."""
        data = asdict(self)
        del data["training"]["learning_rate"]
        return data

    @property
    def digest(self) -> str:
        """SHA-256 of the specification: the identity of the trial."""
        return digest_of(self.to_json())
