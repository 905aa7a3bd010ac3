"""How much memory is in use at the peak of a training step, by placement?

Weights, adapters and AdamW's averages are there all the time; on top comes the larger of what
a pass holds at its fullest (`step`) and what the optimiser holds when it updates: all gradients
and two temporaries of the largest matrix. The figure is that of tensors: what an allocator
rounds up or keeps for later is not in it, nor is the interpreter. Gradient checkpointing is not
modelled, and what CUDA's own kernels hold has not been held against a GPU.

Known discrepancies: where the peak lies in frozen blocks (an adapted head and nothing below it),
plain attention's weights live a little longer in transformers than here, and temporaries of
T5's relative positions are left out: up to 8% of the whole on small models. Elsewhere the
figure is within 5% of PyTorch's allocations on a CPU (``benchmarks/planner.py``).
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
