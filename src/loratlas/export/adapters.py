"""How is an adapter written at one rank with scale 1?

This uniform form is for consumers that know one rank and one scale: every adapter is padded with
zeros to the highest rank, its scale is folded into B, and r = alpha, so that nothing is left to a
pattern. It computes the same; padded rows and columns are zero and get no gradient.
"""

from pathlib import Path

import torch
from peft.utils import ModulesToSaveWrapper

from loratlas.export.copied import CONFIG, require_config
from loratlas.export.fill import uniform
from loratlas.export.fold import Factors, factors_of, folded
from loratlas.export.logits import logits, require_equal
from loratlas.export.subject import Subject
from loratlas.placement.placement import Placement
from loratlas.train.adapters import new_adapters, save_adapters, saved_adapters
from loratlas.train.base import Base
from loratlas.train.verify import ADAPTER_NAME, wrapped_layers


def uniform_adapter(
    base: Base, subject: Subject, folder: Path, *, fill: str | None = None
) -> tuple[Placement, float]:
    """Write the adapter at one rank with scale 1.

    Returns:
        its placement, and the largest difference of its logits from those of the trained one.

    Raises:
        ExportError: the rule of `fill` does not fit.
        VerificationError: it does not compute the same.
    """
    target = uniform(subject.placement, fill)
    rank = target.adapters[0].rank
    with saved_adapters(base, subject.folder, subject.placement) as model:
        layers = wrapped_layers(model)
        kept = {
            adapter.site.path: folded(
                factors_of(layers[adapter.site.path]),
                scale=subject.placement.scale(adapter),
                old_rank=adapter.rank,
                rank=rank,
            )
            for adapter in subject.placement.adapters
        }
        whole = {path: _cloned(module) for path, module in _whole(model).items()}
        expected = logits(base, model)
    with new_adapters(base, target, seed=0, dropout=0.0) as model:
        _fill_in(model, kept, whole)
        save_adapters(
            model, target, folder, base_name=subject.model.name, revision=subject.model.revision
        )
    require_config(folder / CONFIG, target)
    with saved_adapters(base, folder, target) as model:
        return target, require_equal(base, expected, logits(base, model), "the uniform adapter")


def _fill_in(
    model: torch.nn.Module,
    kept: dict[str, Factors],
    whole: dict[str, dict[str, torch.Tensor]],
) -> None:
    """Give fresh adapters the values that were kept; one without any is zero."""
    with torch.no_grad():
        for path, layer in wrapped_layers(model).items():
            fresh = factors_of(layer)
            values = kept.get(path, Factors(torch.zeros(()), torch.zeros(())))
            for tensor, value in zip(fresh, values, strict=True):
                tensor.copy_(value)
    for path, module in _whole(model).items():
        module.load_state_dict(whole[path])


def _whole(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Return the copies of modules that are trained whole, by their names in the PEFT model."""
    return {
        name: module.modules_to_save[ADAPTER_NAME]
        for name, module in model.named_modules()
        if isinstance(module, ModulesToSaveWrapper)
    }


def _cloned(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
