"""Which anatomy has this model: a name, a folder, an anatomy, or an instantiated model?

An instantiated model is read through its configuration, as a fresh model of its class; what it
holds beyond that (adapters, gradient checkpointing) is looked up on the instance. Nothing here
imports torch: a model that is there has imported it.
"""

import json
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loratlas.anatomy.read import read
from loratlas.anatomy.sites import Anatomy
from loratlas.errors import ModelError

# What wrappers add to the path of a module: PEFT's model, PEFT's layers, torch.compile.
_PREFIX = "base_model.model."
_INNER = (".base_layer", "_orig_mod.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Instance:
    """A model as lints see it.

    Attributes:
        anatomy: its sites, without any adapters.
        checkpointing: whether it uses gradient checkpointing.
        num_adapted: how many of its modules hold adapters already.
    """

    anatomy: Anatomy
    checkpointing: bool = False
    num_adapted: int = 0


def model_of(model: Any, *, trust_remote_code: bool = False) -> Instance:
    """Return a model's anatomy, and what an instantiated one holds beyond it.

    Args:
        model: name, folder, ``config.json``, anatomy, or instantiated model.
        trust_remote_code: whether code that comes with a model of this name may run.

    Raises:
        ModelError: it cannot be read, or its modules are not those of its configuration.
    """
    if isinstance(model, Anatomy):
        return Instance(anatomy=model)
    if isinstance(model, (str, Path)):
        return Instance(anatomy=read(model, trust_remote_code=trust_remote_code))
    if not hasattr(model, "named_modules") or not hasattr(model, "config"):
        raise ModelError(
            "a model is a name, a folder, an anatomy, or an instantiated model of transformers, "
            f"not {type(model).__name__}"
        )
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    anatomy = _anatomy_of(base)
    _require_same(anatomy, base)
    return Instance(
        anatomy=anatomy,
        checkpointing=any(getattr(base, name, False) for name in _flag(base)),
        num_adapted=sum(hasattr(module, "base_layer") for module in base.modules()),
    )


def _flag(base: Any) -> list[str]:
    """Return the name of the flag for checkpointing; the older one warns on a newer model."""
    names = ("is_activation_checkpointing", "is_gradient_checkpointing")
    return [name for name in names if hasattr(type(base), name)][:1]


def _anatomy_of(base: Any) -> Anatomy:
    name = type(base).__name__
    config = json.loads(base.config.to_json_string(use_diff=False))
    config["architectures"] = [name]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        file.write_text(json.dumps(config), encoding="utf-8")
        anatomy = read(file)
    if anatomy.architecture != name:
        raise ModelError(f"transformers has no class {name}; give the model's name or folder")
    return replace(anatomy, model=str(base.config._name_or_path or name))


def _require_same(anatomy: Anatomy, base: Any) -> None:
    """Raise unless an instance has every site of its configuration."""
    present = set(_plain(name for name, _ in base.named_modules()))
    present |= set(_plain(name for name, _ in base.named_parameters()))
    missing = [site.path for site in anatomy.sites if site.path not in present]
    if missing:
        raise ModelError(
            f"{anatomy.model}: this instance is not what its configuration describes: "
            f"it has no {missing[0]}"
        )


def _plain(names: Iterable[str]) -> Iterable[str]:
    for name in names:
        plain = name.removeprefix(_PREFIX)
        for piece in _INNER:
            plain = plain.replace(piece, "")
        yield plain
