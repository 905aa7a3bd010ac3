"""What a placement is called in PEFT: exact paths, ranks and scales. `explain` goes back.

How PEFT 0.21 reads a configuration decides the form that is written:

- An entry of a ``target_modules`` list also matches every longer path that ends with it
  (`peft.tuners.tuners_utils.check_target_module_exists`). Where a placed path is the end of a
  path that is not placed, the list is replaced by one regular expression, which PEFT matches
  against the whole path.
- A key of ``rank_pattern`` is a regular expression matched at the end of a path, first match
  wins, and saving sorts the keys (`peft.utils.other.get_pattern_key`). Keys are therefore
  anchored: ``^`` and the escaped path.
- On injection PEFT replaces a list of 20 or more targets by shorter suffixes, in the
  configuration itself, and then saves those (`BaseTuner.inject_adapter`). `adapter_config`
  gives what has to be written instead.
- ``target_modules=None`` means the defaults of the model type; an empty list means none.
- PEFT warns that pattern keys of parameters are ignored, though they take effect. The most
  common rank of parameters is therefore the default rank, which needs no key.
- On models with fused experts PEFT takes a module's name that ends in ``gate_proj``, ``down_proj``
  and the like for an expert's name of older checkpoints, and widens it to the experts of every
  layer (`peft.utils.transformers_weight_conversion`). Such a module of a dense block or a shared
  expert is targeted by its parameter, ``....down_proj.weight``, which is left as it is.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from loratlas.anatomy.sites import Anatomy, Site
from loratlas.errors import PlacementError
from loratlas.placement.peft_tables import RENAMED_EXPERTS, mamba_refused
from loratlas.placement.placement import Adapter, Placement
from loratlas.placement.resolve import ends

if TYPE_CHECKING:
    from peft import LoraConfig

# The names that PEFT gives another meaning on models with fused experts.
_RENAMED = frozenset({"gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"})


def to_peft(placement: Placement, *, dropout: float = 0.0) -> "LoraConfig":
    """Return the configuration that adapts exactly the placed sites.

    The configuration is fresh: PEFT changes the one it injects, so it serves one model.

    Args:
        placement: the placement; its paths are those of the model given to PEFT.
        dropout: dropout on the input of every adapter.

    Raises:
        PlacementError: the placement is empty, has dropout on a site that PEFT reaches as a
            parameter, or a parameter whose path PEFT cannot tell from a longer one.
    """
    # Imported here because peft imports torch.
    from peft import LoraConfig

    return LoraConfig(**config_fields(placement, dropout))


def adapter_config(
    placement: Placement,
    *,
    dropout: float = 0.0,
    base_model: str | None = None,
    revision: str | None = None,
) -> dict[str, Any]:
    """Return the content of ``adapter_config.json`` to write beside saved adapter weights.

    Args:
        placement: what was trained.
        dropout: dropout on the input of every adapter.
        base_model: name or folder of the base model.
        revision: its revision, for a model from the hub.

    Raises:
        PlacementError: as for `to_peft`.
    """
    defaults: dict[str, Any] = to_peft(placement, dropout=dropout).to_dict()  # type: ignore[no-untyped-call]
    config = defaults | config_fields(placement, dropout)
    config |= {
        "base_model_name_or_path": base_model,
        "revision": revision,
        "inference_mode": True,
    }
    plain: dict[str, Any] = json.loads(json.dumps(config, default=sorted, sort_keys=True))
    return plain


def config_fields(placement: Placement, dropout: float = 0.0) -> dict[str, Any]:
    """Return the arguments of `LoraConfig` that a placement decides, without importing PEFT.

    Raises:
        PlacementError: as for `to_peft`.
    """
    if not placement.adapters:
        raise PlacementError("an empty placement has no configuration: there is nothing to adapt")
    fused = _has_fused_experts(placement.anatomy)
    names = {a.site.path: _name(a.site, fused) for a in placement.adapters}
    by_parameter = reached_as_parameters(placement)
    if by_parameter and dropout:
        raise PlacementError(
            "PEFT refuses dropout on adapters of parameters, such as those of experts: "
            f"{names[by_parameter[0].site.path]} is placed and dropout is {dropout:g}; "
            "it has to be 0"
        )
    rank, alpha = _default(by_parameter or placement.adapters)
    parameters = [names[a.site.path] for a in by_parameter]
    modules = [path for path, name in names.items() if name == path]
    modules = [path for path in modules if placement.anatomy.by_path[path].kind != "expert"]
    _refuse_mamba(names, placement.anatomy)
    _refuse_suffixes(parameters, placement.anatomy)
    return {
        "task_type": None,
        "bias": "none",
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": dropout,
        "use_rslora": placement.scaling == "rslora",
        "fan_in_fan_out": any(a.site.kind == "conv1d" for a in placement.adapters),
        "target_modules": _targets(modules, placement.anatomy),
        "target_parameters": parameters or None,
        "rank_pattern": {
            _pattern(names[a.site.path]): a.rank for a in placement.adapters if a.rank != rank
        },
        "alpha_pattern": {
            _pattern(names[a.site.path]): _plain(a.alpha)
            for a in placement.adapters
            if _plain(a.alpha) != alpha
        },
    }


def reached_as_parameters(placement: Placement) -> list[Adapter]:
    """Return the adapters that PEFT reaches as parameters, which take no dropout."""
    fused = _has_fused_experts(placement.anatomy)
    return [a for a in placement.adapters if _is_parameter(a.site, fused)]


def _has_fused_experts(anatomy: Anatomy) -> bool:
    return any(site.num_experts for site in anatomy.sites)


def _is_parameter(site: Site, fused: bool) -> bool:
    """Whether PEFT has to reach a site as a parameter; `fused`: the model has fused experts."""
    renamed = fused and site.path.rsplit(".", 1)[-1] in _RENAMED
    return site.kind == "expert" or renamed


def _name(site: Site, fused: bool) -> str:
    """Return what PEFT calls the target of a site: the module, or its parameter."""
    return parameter_name(site) if _is_parameter(site, fused) else site.path


def parameter_name(site: Site) -> str:
    """Return what PEFT calls the weight of a site when it is targeted as a parameter."""
    return site.path if site.kind == "expert" else f"{site.path}.weight"


def _default(adapters: Iterable[Adapter]) -> tuple[int, float]:
    """Return the most common rank and alpha; of equally common ones, the smallest."""
    counts = Counter((adapter.rank, _plain(adapter.alpha)) for adapter in adapters)
    return min(counts, key=lambda pair: (-counts[pair], pair))


def _plain(alpha: float) -> float:
    """Return a whole alpha as an integer: some readers of the configuration accept no other."""
    return int(alpha) if float(alpha).is_integer() else alpha


def _pattern(path: str) -> str:
    return f"^{re.escape(path)}"


def _targets(paths: list[str], anatomy: Anatomy) -> list[str] | str:
    """Return exact targets: a list, or one regular expression where a list would hit more."""
    if _longer(paths, anatomy.by_path) <= set(paths):
        return sorted(paths)
    if anatomy.model_type in RENAMED_EXPERTS:
        extra = sorted(_longer(paths, anatomy.by_path) - set(paths))[0]
        raise PlacementError(
            f"PEFT cannot target what is placed without {extra}, whose path ends with a placed "
            f"one: in models of type {anatomy.model_type} it reads expressions by last names only"
        )
    return "|".join(re.escape(path) for path in sorted(paths))


def _refuse_mamba(paths: Iterable[str], anatomy: Anatomy) -> None:
    refused = mamba_refused(paths, anatomy.model_type)
    if refused:
        raise PlacementError(
            f"PEFT does not adapt {refused[0]} and the like in models of type "
            f"{anatomy.model_type}, whose kernels read those weights directly; leave them out: "
            "... - names(out_proj)"
        )


def _refuse_suffixes(parameters: list[str], anatomy: Anatomy) -> None:
    extra = sorted(_longer(parameters, map(parameter_name, anatomy.sites)) - set(parameters))
    if extra:
        raise PlacementError(
            f"PEFT cannot target {', '.join(sorted(parameters)[:3])} without {extra[0]}, whose "
            "path ends with it; place both or neither"
        )


def _longer(names: Iterable[str], everything: Iterable[str]) -> set[str]:
    """Return what, of everything, ends with one of these names and is longer."""
    short = set(names)
    return {name for name in everything if any(end in short for end in ends(name))}
