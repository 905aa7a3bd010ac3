"""Which modules of a sequence classifier are new, and with which values do they begin?

A base that was trained on text has no head for a study's classes. What is new is drawn per seed
and trained whole, in every placement alike; PEFT keeps it as `modules_to_save`.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from loratlas.train import randomness

_DEFAULT_RANGE = 0.02


def head_of(model: Any, missing: Iterable[str]) -> tuple[str, ...]:
    """Return the paths of a classifier's new modules, in the order of the model.

    They are the modules beside its backbone, and those in it that the checkpoint does not
    hold, such as BERT's pooler in a checkpoint of a masked language model.

    Args:
        model: the sequence classifier.
        missing: names of the parameters that its checkpoint lacks.
    """
    prefix = model.base_model_prefix
    beside = [
        name
        for name, child in model.named_children()
        if name != prefix and any(True for _ in child.parameters())
    ]
    inside = {name.rpartition(".")[0] for name in missing if name.startswith(f"{prefix}.")}
    return (*(name for name, _ in model.named_modules() if name in inside), *beside)


def initialise_head(model: Any, head: Sequence[str], *, seed: int, suffix: str = "") -> None:
    """Draw the weights of a head, normal with the model's `initializer_range`; biases are zero.

    Norms keep the ones they are made with.

    Args:
        model: the classifier that holds the head.
        head: paths of its modules.
        seed: with the path, decides the values.
        suffix: what follows each path where PEFT keeps the module that is trained.
    """
    deviation = float(getattr(model.config, "initializer_range", None) or _DEFAULT_RANGE)
    with torch.no_grad():
        for path in head:
            module = model.get_submodule(f"{path}{suffix}")
            for name, parameter in module.named_parameters():
                _initialise(parameter, name, f"{path}.{name}", seed, deviation)


def _initialise(
    parameter: torch.nn.Parameter, name: str, path: str, seed: int, deviation: float
) -> None:
    if parameter.dim() >= 2:
        drawn = randomness.initial_weight(seed, path, tuple(parameter.shape), deviation)
        parameter.copy_(torch.from_numpy(drawn))
    elif name.endswith("bias"):
        parameter.zero_()
    else:
        parameter.fill_(1.0)
