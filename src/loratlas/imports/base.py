"""Which model were imported results made with, and what does a LoRA configuration hit in it?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loratlas.anatomy.read import read
from loratlas.anatomy.sites import Anatomy, digest_of
from loratlas.placement.explain import explain
from loratlas.study.records import PlacementRecord
from loratlas.study.resolve import families


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseModel:
    """The base model that a person names, if any."""

    name: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False

    def anatomy(self, otherwise: str | None = None) -> Anatomy | None:
        """Return the sites of the model, or of the one that the source names; None without either.

        Raises:
            ModelError: it cannot be read.
        """
        name = self.name or otherwise
        if name is None:
            return None
        return read(name, revision=self.revision, trust_remote_code=self.trust_remote_code)


def resolved(
    name: str, config: Mapping[str, Any], anatomy: Anatomy, *, parameters: int | None = None
) -> PlacementRecord:
    """Return what a LoRA configuration is on a model.

    Args:
        name: what it is called.
        config: the content of ``adapter_config.json``.
        anatomy: the model.
        parameters: trainable parameters that were counted; None takes those of the placement.

    Raises:
        PlacementError: it cannot be read.
        NotYetError: it changes the model in a way that is not read yet.
    """
    found = explain(config, anatomy)
    placement = found.placement
    return PlacementRecord(
        name=name,
        digest=placement.digest if placement.adapters else unresolved_digest(name),
        rule=in_short(config),
        trainable_parameters=placement.trainable_parameters if parameters is None else parameters,
        matched_to=None,
        families=families(placement),
        adapters=placement.to_json()["placement"],
        warnings=[{"code": lint.code, "message": lint.message} for lint in found.lints],
    )


def unresolved(name: str, rule: str, parameters: int) -> PlacementRecord:
    """Return a placement of which only the size is known."""
    return PlacementRecord(
        name=name,
        digest=unresolved_digest(name),
        rule=rule,
        trainable_parameters=parameters,
        matched_to=None,
        families={},
        adapters=[],
        warnings=[],
    )


def unresolved_digest(name: str) -> str:
    """Return what stands for the digest of a placement whose sites are not known."""
    return digest_of({"imported": name})


def in_short(config: Mapping[str, Any] | None) -> str:
    """Return a configuration of PEFT in a line."""
    if config is None:
        return "full fine-tuning"
    kind = str(config.get("peft_type") or "LORA").lower()
    if kind != "lora":
        return kind
    targets = config.get("target_modules")
    shown = ", ".join(sorted(targets)) if isinstance(targets, list) else targets
    return f"rank {config.get('r')}, alpha {config.get('lora_alpha')} on {shown}"
