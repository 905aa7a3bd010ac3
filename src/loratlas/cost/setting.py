"""Which step is accounted for: the rows of a batch, the adapters, how the base is run."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from loratlas.anatomy.sites import Site
from loratlas.cost.blueprint import Blueprint
from loratlas.cost.model_types import ModelType
from loratlas.cost.tape import FLOAT32, Tape

Attention = Literal["sdpa", "eager"]
Experts = Literal["grouped_mm", "eager"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """The rows of an optimiser step.

    Attributes:
        rows: rows of the largest micro-batch.
        tokens: its length with padding, of the encoder's rows where there is an encoder.
        decoder_tokens: length of the decoder's rows beside an encoder's.
        tokens_per_step: tokens of a step, padding included, on average.
        pairs_per_step: rows times squared length of a step, on average.
        passes: micro-batches of a step, on average.
        padded: whether rows of one batch differ in length, so that attention takes a mask.
    """

    rows: int
    tokens: int
    decoder_tokens: int | None = None
    tokens_per_step: float
    pairs_per_step: float
    passes: float = 1
    padded: bool = False

    @classmethod
    def alike(
        cls,
        rows: int,
        tokens: int,
        *,
        decoder_tokens: int | None = None,
        passes: int = 1,
        padded: bool = False,
    ) -> Self:
        """Return the workload whose micro-batches all have one shape."""
        return cls(
            rows=rows,
            tokens=tokens,
            decoder_tokens=decoder_tokens,
            tokens_per_step=passes * rows * tokens,
            pairs_per_step=passes * rows * tokens**2,
            passes=passes,
            padded=padded,
        )

    @classmethod
    def of_rows(
        cls,
        lengths: Sequence[int],
        *,
        batch: int,
        accumulation: int,
        decoder_lengths: Sequence[int] | None = None,
    ) -> Self:
        """Return the workload of one pass over rows, cut into micro-batches as they stand.

        Args:
            lengths: tokens of each row, in the order of training, the encoder's where there is
                one.
            batch: rows of a micro-batch; the last may be smaller.
            accumulation: micro-batches of a step; the last step may have fewer.
            decoder_lengths: the decoder's tokens of each row beside an encoder's. Its longest
                decides, and its average is taken to vary as the encoder's does.
        """
        batches = [lengths[start : start + batch] for start in range(0, len(lengths), batch)]
        num_steps = math.ceil(len(batches) / accumulation)
        shapes = [(len(lengths), max(lengths)) for lengths in batches]
        rows, tokens = max(shapes, key=lambda shape: (shape[0] * shape[1], shape[1]))
        return cls(
            rows=rows,
            tokens=tokens,
            decoder_tokens=None if decoder_lengths is None else max(decoder_lengths),
            tokens_per_step=sum(r * t for r, t in shapes) / num_steps,
            pairs_per_step=sum(r * t * t for r, t in shapes) / num_steps,
            passes=len(batches) / num_steps,
            padded=any(min(lengths) < max(lengths) for lengths in batches),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """Everything that a step depends on apart from where adapters go.

    Attributes:
        blueprint: how the model's blocks are put together.
        workload: the rows.
        dropout: dropout on the adapters' input.
        width: bytes of one element of the base, 4 or 2.
        attention: one kernel, or plain steps.
        experts: all experts in one call, as transformers has it by default, or one by one.
        on_cpu: whether dropout keeps a float for each element.
        checkpointing: whether each block keeps its input alone and is run again on the way back,
            as ``torch.utils.checkpoint`` has it with ``use_reentrant=False``.
        input_gradients: whether embedded tokens want a gradient, which draws frozen blocks below
            the lowest adapter in. Transformers asks for it whenever it turns checkpointing on.
    """

    blueprint: Blueprint
    workload: Workload
    dropout: float = 0.0
    width: int = FLOAT32
    attention: Attention = "sdpa"
    experts: Experts = "grouped_mm"
    on_cpu: bool = True
    checkpointing: bool = False
    input_gradients: bool = False

    @property
    def attends_in_steps(self) -> bool:
        """Whether attention runs in plain steps, asked for or for want of a kernel."""
        return self.attention == "eager" or not self.blueprint.code.has_kernel


@dataclass(frozen=True, kw_only=True, slots=True)
class Adapted:
    """Where the adapters are.

    Attributes:
        ranks: the rank of every adapted site, by path.
        bare: paths of those that PEFT reaches as parameters: it adds B A to their weights.
    """

    ranks: Mapping[str, int]
    bare: frozenset[str] = frozenset()

    def among(self, sites: Iterable[Site]) -> tuple[tuple[int, int, bool], ...]:
        """Return which of the sites are adapted: number, rank, whether as a bare parameter."""
        return tuple(
            (number, self.ranks[site.path], site.path in self.bare)
            for number, site in enumerate(sites)
            if site.path in self.ranks
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Pass:
    """A forward pass under way: its account, its setting, its adapters."""

    tape: Tape
    setting: Setting
    adapted: Adapted

    @property
    def rows(self) -> int:
        """Rows of the micro-batch."""
        return self.setting.workload.rows

    @property
    def blueprint(self) -> Blueprint:
        """How the model's blocks are put together."""
        return self.setting.blueprint

    @property
    def code(self) -> ModelType:
        """What the model type's code does between the maps."""
        return self.setting.blueprint.code
