"""Which placement does a text on the command line name: a rule, or a file of one of two kinds?"""

import json
from pathlib import Path
from typing import Any

from loratlas.anatomy.sites import Anatomy
from loratlas.errors import PlacementError
from loratlas.placement.explain import explain
from loratlas.placement.peft_fields import config_file
from loratlas.placement.placement import LoraSpec, Placement, place


def read_written(text: str, anatomy: Anatomy, lora: LoraSpec) -> Placement:
    """Return the placement that a text names.

    Args:
        text: the path of a saved placement, of an ``adapter_config.json`` or of its folder, where
            such a file is there; else a rule.
        anatomy: the model.
        lora: rank, alpha and scaling for a rule; files have their own.

    Raises:
        RuleError: the rule cannot be read.
        PlacementError: the rule, or the file, does not fit the model.
    """
    file = _file(text)
    if file is None:
        return place(anatomy, text, rank=lora.rank, alpha=lora.alpha, scaling=lora.scaling)
    data = _read(file)
    if "placement" not in data:
        return _explained(file, anatomy)
    config = data.get("lora_config") or {}
    if not isinstance(config, dict):
        raise PlacementError(f"{file}: lora_config is a mapping or null, not {config!r:.60}")
    rslora = config.get("use_rslora")
    return Placement.from_json(data, anatomy, scaling="rslora" if rslora else "constant")


def _file(text: str) -> Path | None:
    """Return the file that a text names, None where it names none."""
    try:
        file = config_file(text)
        found = file.is_file()
    except (OSError, ValueError, RuntimeError):  # too long, or no name that a file can have
        return None
    if not found and text.strip().endswith(".json"):
        raise PlacementError(f"there is no file {text}")
    return file if found else None


def _read(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise PlacementError(f"{file} cannot be read as JSON: {error}") from None
    if not isinstance(data, dict):
        raise PlacementError(f"{file} holds a {type(data).__name__}, and no placement")
    return data


def _explained(file: Path, anatomy: Anatomy) -> Placement:
    explanation = explain(file, anatomy)
    if explanation.refusal is not None:
        raise PlacementError(f"{file}: PEFT refuses this configuration: {explanation.refusal}")
    return explanation.placement
