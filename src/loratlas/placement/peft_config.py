"""What a placement is called in PEFT, and back: exact paths, ranks and scales.

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
- PEFT warns that pattern keys of expert parameters are ignored, though they take effect. The
  experts' most common rank is therefore the default rank, which needs no key.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loratlas.anatomy.sites import Anatomy, Site
from loratlas.errors import NotYetError, PlacementError, did_you_mean
from loratlas.placement.placement import Adapter, Placement

if TYPE_CHECKING:
    from peft import LoraConfig

# What `read_peft` understands. Any other field must be empty or at PEFT's default.
_READ = ("target_modules", "target_parameters", "r", "lora_alpha", "rank_pattern", "alpha_pattern")
_REFUSED = (
    "layers_to_transform",
    "layers_pattern",
    "exclude_modules",
    "modules_to_save",
    "layer_replication",
    "trainable_token_indices",
    "use_dora",
)


def to_peft(placement: Placement, *, dropout: float = 0.0) -> "LoraConfig":
    """Return the configuration that adapts exactly the placed sites.

    The configuration is fresh: PEFT changes the one it injects, so it serves one model.

    Args:
        placement: the placement; its paths are those of the model given to PEFT.
        dropout: dropout on the input of every adapter.

    Raises:
        PlacementError: the placement is empty, has dropout on expert parameters, or an expert
            parameter whose path PEFT cannot tell from a longer one.
    """
    # Imported here because peft imports torch.
    from peft import LoraConfig

    return LoraConfig(**_fields(placement, dropout))


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
    config = defaults | _fields(placement, dropout)
    config |= {
        "base_model_name_or_path": base_model,
        "revision": revision,
        "inference_mode": True,
    }
    plain: dict[str, Any] = json.loads(json.dumps(config, default=sorted, sort_keys=True))
    return plain


def _fields(placement: Placement, dropout: float) -> dict[str, Any]:
    if not placement.adapters:
        raise PlacementError("an empty placement has no configuration: there is nothing to adapt")
    experts = [adapter for adapter in placement.adapters if adapter.site.kind == "expert"]
    if experts and dropout:
        raise PlacementError(
            f"PEFT refuses dropout on adapters of expert parameters: {experts[0].site.path} is "
            f"placed and dropout is {dropout:g}; it has to be 0"
        )
    rank, alpha = _default(experts or placement.adapters)
    modules = [a.site.path for a in placement.adapters if a.site.kind != "expert"]
    parameters = [a.site.path for a in experts]
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
            _pattern(a.site.path): a.rank for a in placement.adapters if a.rank != rank
        },
        "alpha_pattern": {
            _pattern(a.site.path): _plain(a.alpha)
            for a in placement.adapters
            if _plain(a.alpha) != alpha
        },
    }


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
    if _longer(paths, anatomy) <= set(paths):
        return sorted(paths)
    return "|".join(re.escape(path) for path in sorted(paths))


def _refuse_suffixes(parameters: list[str], anatomy: Anatomy) -> None:
    extra = sorted(_longer(parameters, anatomy) - set(parameters))
    if extra:
        raise PlacementError(
            f"PEFT cannot target {', '.join(sorted(parameters)[:3])} without {extra[0]}, whose "
            "path ends with it; place both or neither"
        )


def _longer(paths: Iterable[str], anatomy: Anatomy) -> set[str]:
    """Return the paths of a model that end with one of these, and are longer."""
    short = set(paths)
    return {path for path in anatomy.by_path if any(end in short for end in _ends(path))}


def _ends(path: str) -> Iterable[str]:
    while "." in path:
        path = path.split(".", 1)[1]
        yield path


def read_peft(config: Mapping[str, Any] | str | Path, anatomy: Anatomy) -> Placement:
    """Return the placement that a LoRA configuration means on a model, by PEFT's own matching.

    Args:
        config: the content of ``adapter_config.json``, the file, or the folder that holds it.
        anatomy: the model.

    Raises:
        PlacementError: the file cannot be read, or an entry matches no site.
        NotYetError: the configuration uses a field that is not read yet.
    """
    data = config if isinstance(config, Mapping) else _read_config(Path(config))
    refused = [key for key in _REFUSED if data.get(key)]
    if refused or data.get("peft_type", "LORA") != "LORA":
        what = ", ".join(refused) or f"peft_type {data['peft_type']}"
        raise NotYetError(f"a configuration with {what} is not read yet; it reads {_READ}")
    modules = [site for site in anatomy.sites if site.kind != "expert"]
    experts = [site for site in anatomy.sites if site.kind == "expert"]
    targets = data.get("target_modules")
    sites = _hit(() if targets is None else targets, modules, anatomy) + _hit(
        data.get("target_parameters") or (), experts, anatomy
    )
    return Placement(
        anatomy=anatomy,
        adapters=tuple(_adapter_of(site, data) for site in sites),
        scaling="rslora" if data.get("use_rslora") else "alpha/r",
    )


def _read_config(place: Path) -> Mapping[str, Any]:
    file = place / "adapter_config.json" if place.is_dir() else place
    try:
        data: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PlacementError(f"{file} cannot be read as a LoRA configuration: {error}") from None
    return data


def _hit(targets: str | Iterable[str], sites: list[Site], anatomy: Anatomy) -> list[Site]:
    """Return the sites that targets match: a whole regular expression, or dotted suffixes."""
    if isinstance(targets, str):
        if targets == "all-linear":
            raise NotYetError("target_modules: all-linear is not read yet; list the modules")
        return [site for site in sites if re.fullmatch(targets, site.path)]
    entries = set(targets)
    hits = [site for site in sites if entries & {site.path, *_ends(site.path)}]
    matched = {end for site in hits for end in (site.path, *_ends(site.path))}
    for entry in sorted(entries - matched):
        raise PlacementError(
            f"the configuration's target {entry} matches no site of {anatomy.model}"
            f"{did_you_mean(entry, (site.path for site in sites))}"
        )
    return hits


def _adapter_of(site: Site, data: Mapping[str, Any]) -> Adapter:
    rank = _by_pattern(data.get("rank_pattern"), site.path, data.get("r", 8))
    alpha = _by_pattern(data.get("alpha_pattern"), site.path, data.get("lora_alpha", 8))
    return Adapter(site=site, rank=int(rank), alpha=alpha)


def _by_pattern(patterns: Mapping[str, float] | None, path: str, default: float) -> float:
    """Return the value of the first pattern that matches a path, as PEFT looks it up."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", path):
            return value
    return default
