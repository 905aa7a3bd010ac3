"""Which placement is an adapter that PEFT saved, on its base model?"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from loratlas.errors import DataError, PlacementError
from loratlas.imports.base import BaseModel, resolved
from loratlas.imports.imported import Imported
from loratlas.study.records import PlacementRecord

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def is_adapters(folder: Path) -> bool:
    """Return whether a folder is an adapter, or holds some."""
    return bool(_folders(folder))


def read_adapters(folder: Path, base: BaseModel) -> Imported:
    """Read an adapter, or a folder of adapters of one base model.

    A saved adapter states neither learning rate nor seed nor loss, so there is no trial.

    Raises:
        DataError: an adapter cannot be read, holds other weights than its configuration says, or
            the adapters are of different models.
        ModelError: the base model cannot be read.
    """
    configs = {each: _config(each / CONFIG) for each in _folders(folder)}
    anatomy = base.anatomy(_model(folder, configs))
    if anatomy is None:
        raise DataError(f"{folder}: the adapter does not state its base model; say it with --model")
    placements = [_placement(each, config, anatomy) for each, config in configs.items()]
    return Imported(
        source="peft",
        placements=placements,
        anatomy=anatomy,
        setting={
            "base_parameters": anatomy.num_parameters,
            "study": {"model": {"name": anatomy.model, "revision": base.revision}},
        },
        notes=[
            "Saved adapters state no learning rate, seed or loss: there are placements, and no "
            "trials."
        ],
    )


def _folders(folder: Path) -> list[Path]:
    if (folder / CONFIG).is_file():
        return [folder]
    return sorted(file.parent for file in folder.glob(f"*/{CONFIG}"))


def _config(file: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: cannot be read as JSON: {error}") from None
    if not isinstance(data, dict):
        raise DataError(f"{file}: holds a {type(data).__name__}, not a LoRA configuration")
    return data


def _model(folder: Path, configs: Mapping[Path, Mapping[str, Any]]) -> str | None:
    """Return the base that the adapters state."""
    named = {config.get("base_model_name_or_path") for config in configs.values()} - {None, ""}
    models = sorted(str(name) for name in named)
    if len(models) > 1:
        raise DataError(
            f"{folder}: adapters of different models do not compare: {', '.join(models)}"
        )
    return models[0] if models else None


def _placement(folder: Path, config: Mapping[str, Any], anatomy: Any) -> PlacementRecord:
    try:
        record = resolved(folder.resolve().name, config, anatomy)
    except PlacementError as error:
        raise DataError(f"{folder / CONFIG}: {error}") from error
    if not record.adapters:
        told = "; ".join(warning["message"] for warning in record.warnings)
        raise DataError(f"{folder / CONFIG}: it adapts nothing in {anatomy.model}: {told}")
    _require_weights(folder / WEIGHTS, record, anatomy.model)
    return record


def _require_weights(file: Path, record: PlacementRecord, model: str) -> None:
    """Hold the saved weights, where they are there, against what the configuration says."""
    if not file.is_file():
        return
    try:
        with safe_open(file, framework="np") as tensors:
            names = [name for name in tensors.keys() if ".lora_" in name]  # noqa: SIM118
            found = sum(math.prod(tensors.get_slice(name).get_shape()) for name in names)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{file}: cannot be read: {error}") from error
    if found != record.trainable_parameters:
        raise DataError(
            f"{file}: holds {found:,} adapter parameters, and its configuration means "
            f"{record.trainable_parameters:,} on {model}: weights, configuration and model do "
            "not belong together"
        )
