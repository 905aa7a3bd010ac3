"""How much memory is in use at the peak of a training step, by placement?

Weights, adapters and AdamW's averages are there all the time; on top comes the larger of what
a pass holds at its fullest (`step`) and what the optimiser holds when it updates: all gradients
and two temporaries of the largest matrix. Micro-batches run one after another: from the second
on, the gradients of the first are there too. The figure is that of tensors: what an allocator
rounds up or keeps for later is not in it, nor is the interpreter. It has been held against
allocations on CPUs only, so there is no figure for a GPU.

Checkpointed blocks (`Setting.checkpointing`) keep their input and run again on the way back.
Experts run as transformers runs them by default, in one grouped product; what that holds does
not depend on which expert a row goes to. One by one (`Setting.experts`) the largest expert sets
the temporaries, and every expert is taken to be visited by as many rows as any other.

Known discrepancies: where the peak lies in frozen blocks (an adapted head and nothing below it),
what plain attention lets go of between its steps is off by up to 3% of the whole on small
models, and by up to 4% with an encoder beside a decoder. Elsewhere the
figure is within 5% of PyTorch's allocations on a CPU (``benchmarks/memory.py``). Transformers'
layer dropout, which leaves whole blocks out by chance, is not modelled.
"""

from dataclasses import dataclass

from loratlas.anatomy.sites import Anatomy
from loratlas.cost.parameters import adapter_bytes, optimiser_bytes
from loratlas.cost.setting import Setting
from loratlas.cost.tape import FLOAT32
from loratlas.placement.placement import Placement

_OPTIMISER_TEMPORARIES = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Bytes of tensors at the peak of an optimiser step that is not the first.

    Attributes:
        weights: the frozen base.
        adapters: adapter weights.
        optimiser: AdamW's two averages.
        step: what comes on top: activations, gradients, logits, temporaries.
    """

    weights: int
    adapters: int
    optimiser: int
    step: int

    @property
    def peak(self) -> int:
        """All of it."""
        return self.weights + self.adapters + self.optimiser + self.step


def memory_of(
    anatomy: Anatomy, placement: Placement, setting: Setting, peak_of_passes: int
) -> Memory:
    """Return the memory of a placement.

    Args:
        anatomy: the model.
        placement: the adapters.
        setting: how the base is run.
        peak_of_passes: most bytes that a pass adds to weights and optimiser.
    """
    count = placement.trainable_parameters
    gradients = adapter_bytes(count)
    # Gradients of earlier micro-batches are there while the next one runs.
    held = gradients if setting.workload.passes > 1 else 0
    largest = max(
        (a.rank * max(a.site.d_in, a.site.d_out) * (a.site.num_experts or 1))
        for a in placement.adapters
    )
    update = gradients + _OPTIMISER_TEMPORARIES * largest * FLOAT32
    return Memory(
        weights=anatomy.num_parameters * setting.width,
        adapters=adapter_bytes(count),
        optimiser=optimiser_bytes(count),
        step=max(peak_of_passes + held, update),
    )
