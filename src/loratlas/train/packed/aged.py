"""How does AdamW treat entries that were not there from the beginning?

The moments of a new entry are zero. AdamW corrects moments for that by the number of steps, one
number for a whole tensor; of an entry that is younger it would take steps several times too large.
Here every entry has an age of its own, and for entries of one age this is torch's AdamW.
"""

import math
from collections.abc import Callable
from typing import Any

import torch

from loratlas.train.state import State


class AgedAdamW(torch.optim.Optimizer):
    """AdamW (arXiv 1711.05101) over one vector, with an age for each entry.

    Args:
        values: what is trained.
        lr: peak rate.
        weight_decay: decoupled decay.
        betas: of the moments.
        eps: added to the root of the second moment.
    """

    def __init__(
        self,
        values: torch.nn.Parameter,
        *,
        lr: float,
        weight_decay: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(
            [values], {"lr": lr, "weight_decay": weight_decay, "betas": betas, "eps": eps}
        )
        self._values = values
        self.first = torch.zeros_like(values)
        self.second = torch.zeros_like(values)
        self.age = torch.zeros_like(values)

    @property
    def followers(self) -> tuple[torch.Tensor, ...]:
        """What belongs to each entry: both moments and its age, each in the form of the vector."""
        return self.first, self.second, self.age

    def moments(self) -> State:
        """Return both moments and the ages as they are."""
        names = "first", "second", "age"
        return State(tensors=dict(zip(names, self.followers, strict=True)))

    def restore(self, moments: State) -> None:
        """Take moments and ages back; the vectors stay where they are."""
        for name, follower in self.moments().tensors.items():
            moments.copy_to(follower, name)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step; without a gradient, none."""
        assert closure is None, "no closure is evaluated"
        group: dict[str, Any] = self.param_groups[0]
        gradient, (beta1, beta2) = self._values.grad, group["betas"]
        if gradient is None:
            return
        self.age.add_(1)
        self._values.mul_(1 - group["lr"] * group["weight_decay"])
        self.first.lerp_(gradient, 1 - beta1)
        self.second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        root = (self.second / self._weight(beta2)).sqrt_().add_(group["eps"])
        self._values.addcdiv_(self.first / self._weight(beta1), root, value=-group["lr"])

    def _weight(self, beta: float) -> torch.Tensor:
        """Return 1 - βᵃᵍᵉ, without taking a number near 1 from 1 in fp32."""
        return -torch.expm1(self.age * math.log(beta))
