"""What does a LoRA configuration say? A file, a folder, plain data or a `LoraConfig` → fields.

Only the fields that decide where adapters go and how large and how strong they are; what is
left out has PEFT's default.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loratlas.errors import NotYetError, PlacementError, did_you_mean

Targets = str | tuple[str, ...] | None
_KEYS = ("target_modules", "target_parameters", "r", "lora_alpha", "peft_type")
# What is beyond these is no rank, layer or alpha of any model, and may be beyond a float.
_MOST_DIGITS = 9
_LARGEST = 1e12


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraFields:
    """The fields of a LoRA configuration that decide what PEFT wraps; names are PEFT's own."""

    target_modules: Targets = None
    """A regular expression, ``all-linear``, suffixes of paths, or PEFT's default (None)."""
    target_parameters: tuple[str, ...] = ()
    exclude_modules: Targets = None
    modules_to_save: tuple[str, ...] = ()
    layers_to_transform: int | tuple[int, ...] | None = None
    layers_pattern: tuple[str, ...] | None = None
    r: int = 8
    lora_alpha: float = 8
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    use_rslora: bool = False
    use_dora: bool = False
    lora_bias: bool = False
    fan_in_fan_out: bool = False
    lora_dropout: float = 0.0
    bias: str = "none"


def read_fields(config: Any) -> LoraFields:
    """Read a configuration.

    Args:
        config: a `LoraConfig`, the content of ``adapter_config.json``, that file, or the folder
            that holds it.

    Raises:
        PlacementError: there is no such file, or it is no LoRA configuration.
        NotYetError: the configuration changes the model in a way that is not read yet.
    """
    data = _data_of(config)
    if not any(key in data for key in _KEYS):
        raise PlacementError(
            f"this is no LoRA configuration: it has none of {', '.join(_KEYS)}; "
            f"its keys are {', '.join(list(map(str, data))[:8]) or 'none'}"
        )
    _refuse_unread(data)
    return LoraFields(
        target_modules=_targets(data, "target_modules"),
        target_parameters=_names(data, "target_parameters"),
        exclude_modules=_targets(data, "exclude_modules"),
        modules_to_save=_names(data, "modules_to_save"),
        layers_to_transform=_layers(data),
        layers_pattern=_layers_pattern(data),
        r=_integer(data.get("r", 8), "r"),
        lora_alpha=_number(data.get("lora_alpha", 8), "lora_alpha"),
        rank_pattern={
            key: _integer(value, f"rank_pattern.{key}")
            for key, value in _pattern(data, "rank_pattern").items()
        },
        alpha_pattern={
            key: _number(value, f"alpha_pattern.{key}")
            for key, value in _pattern(data, "alpha_pattern").items()
        },
        use_rslora=bool(data.get("use_rslora")),
        use_dora=bool(data.get("use_dora")),
        lora_bias=bool(data.get("lora_bias")),
        fan_in_fan_out=bool(data.get("fan_in_fan_out")),
        lora_dropout=_number(data.get("lora_dropout") or 0, "lora_dropout"),
        bias=str(data.get("bias") or "none"),
    )


def config_file(config: str | Path) -> Path:
    """Return the file of a configuration that is given as a file or as its folder."""
    try:
        place = Path(config).expanduser()
        return place / "adapter_config.json" if place.is_dir() else place
    except (OSError, RuntimeError):  # too long a name, or the home of nobody: as it is
        return Path(config)


def _data_of(config: Any) -> Mapping[str, Any]:
    if isinstance(config, Mapping):
        return config
    if isinstance(config, (str, Path)):
        return _read_file(config_file(config))
    if hasattr(config, "to_dict"):
        data: Mapping[str, Any] = config.to_dict()
        return data
    raise PlacementError(
        "a configuration is a LoraConfig, its plain data, or the path of adapter_config.json, "
        f"not {type(config).__name__}"
    )


def _read_file(file: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        folder = file.parent
        others = [each.name for each in folder.iterdir()] if folder.is_dir() else []
        near = did_you_mean(file.name, others)
        raise PlacementError(f"there is no LoRA configuration {file}{near}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise PlacementError(f"{file} cannot be read as a LoRA configuration: {error}") from None
    if not isinstance(data, dict):
        raise PlacementError(f"{file} holds a {type(data).__name__}, not a LoRA configuration")
    return data


def _refuse_unread(data: Mapping[str, Any]) -> None:
    kind = data.get("peft_type") or "LORA"
    kind = getattr(kind, "value", kind)
    if kind != "LORA":
        raise NotYetError(f"a configuration of peft_type {kind!s:.60} is not read yet; LORA is")
    for key in ("layer_replication", "ensure_weight_tying"):
        if data.get(key):
            raise NotYetError(f"a configuration with {key} is not read yet")


def _targets(data: Mapping[str, Any], key: str) -> Targets:
    value = data.get(key)
    return value if value is None or isinstance(value, str) else _names(data, key)


def _names(data: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = data.get(key)
    if value is None:
        return ()
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise PlacementError(f"{key} is a list of names, not {value!r:.200}")
    odd = next((name for name in value if not isinstance(name, str) or not name), None)
    if odd is not None:
        raise PlacementError(f"{key} is a list of names; {odd!r:.200} is none")
    return tuple(sorted(value) if isinstance(value, (set, frozenset)) else value)


def _layers(data: Mapping[str, Any]) -> int | tuple[int, ...] | None:
    value = data.get("layers_to_transform")
    if value is None:
        return None
    if isinstance(value, (list, tuple, set, frozenset)):
        return tuple(_integer(layer, "layers_to_transform") for layer in value)
    return _integer(value, "layers_to_transform")


def _layers_pattern(data: Mapping[str, Any]) -> tuple[str, ...] | None:
    value = data.get("layers_pattern")
    if value is None:
        return None
    if isinstance(value, str):
        return (value,) if value else ()
    return _names(data, "layers_pattern")


def _pattern(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = data.get(key) or {}
    if not isinstance(value, Mapping):
        raise PlacementError(
            f"{key} gives each name a number, such as {{q_proj: 4}}, not {value!r:.200}"
        )
    return {str(name): each for name, each in value.items()}


def _integer(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise PlacementError(f"{where} is an integer, not {value!r:.200}")
    if abs(value) >= 10**_MOST_DIGITS:
        raise PlacementError(f"{where} is an integer of at most {_MOST_DIGITS} digits")
    return value


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise PlacementError(f"{where} is a number, not {value!r:.200}")
    if not abs(value) <= _LARGEST:  # nor is NaN
        raise PlacementError(f"{where} is a finite number up to {_LARGEST:g}, not {value!r:.60}")
    return value
