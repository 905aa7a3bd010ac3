"""What does an existing LoRA configuration really do to a model, and which pitfalls are in it?"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from loratlas.anatomy.sites import Anatomy, Site
from loratlas.errors import PlacementError
from loratlas.placement.instance import model_of
from loratlas.placement.peft_fields import LoraFields, read_fields
from loratlas.placement.peft_matching import Wrapped, wrap
from loratlas.placement.peft_names import RefusedError
from loratlas.placement.pitfalls import peft_refuses, pitfalls, stacked_adapters
from loratlas.placement.placement import Adapter, Placement, Scaling
from loratlas.placement.placement_lints import Lint, placement_lints
from loratlas.placement.resolve import ends


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """What PEFT makes of a configuration.

    Attributes:
        placement: what it wraps: exact sites, ranks and alphas; empty where PEFT would raise.
        targets: for each entry of the configuration, the sites that it hits.
        dropout: dropout on the input of every adapter.
        refusal: why PEFT would raise, None where it would not.
        lints: every pitfall that the configuration steps into, the refusal first.
    """

    placement: Placement
    targets: Mapping[str, tuple[Site, ...]] = field(repr=False)
    dropout: float
    refusal: str | None
    lints: tuple[Lint, ...]

    def targets_json(self) -> list[dict[str, Any]]:
        """Return what each entry hits as plain data."""
        return [
            {"target": entry, "paths": [site.path for site in sites]}
            for entry, sites in self.targets.items()
        ]


def explain(config: Any, anatomy: Anatomy, *, checkpointing: bool = False) -> Explanation:
    """Explain a configuration by PEFT's own matching.

    Args:
        config: a `LoraConfig`, the content of ``adapter_config.json``, that file, or its folder.
        anatomy: the model.
        checkpointing: whether training uses gradient checkpointing.

    Raises:
        PlacementError: the configuration cannot be read, or holds a regular expression that is
            not valid or takes too long.
        NotYetError: it changes the model in a way that is not read yet.
    """
    fields = read_fields(config)
    try:
        wrapped = wrap(fields, anatomy)
    except RefusedError as refused:
        return _refused(fields, anatomy, refused)
    placement = _placement(anatomy, fields, wrapped.adapters)
    lints = [*pitfalls(wrapped, anatomy)]
    lints += placement_lints(placement, checkpointing=checkpointing)
    return Explanation(
        placement=placement,
        targets=_by_target(wrapped),
        dropout=fields.lora_dropout,
        refusal=None,
        lints=tuple(lints),
    )


def lint(config: Any, model: Any, *, trust_remote_code: bool = False) -> list[Lint]:
    """Return every pitfall of a LoRA configuration on a model.

    Args:
        config: a `LoraConfig`, the content of ``adapter_config.json``, that file, or its folder.
        model: a name, folder or anatomy, or an instantiated model of transformers or PEFT, which
            also says whether it uses gradient checkpointing and holds adapters already.
        trust_remote_code: whether code that comes with a model of this name may run.

    Raises:
        ModelError: the model cannot be read.
        PlacementError: as for `explain`.
        NotYetError: as for `explain`.
    """
    known = model_of(model, trust_remote_code=trust_remote_code)
    found = explain(config, known.anatomy, checkpointing=known.checkpointing).lints
    return [*stacked_adapters(known.num_adapted), *found]


def read_peft(config: Any, anatomy: Anatomy) -> Placement:
    """Return the placement that a LoRA configuration means on a model, by PEFT's own matching.

    Raises:
        PlacementError: it cannot be read, PEFT would raise, or one of its targets hits nothing.
        NotYetError: it changes the model in a way that is not read yet.
    """
    explanation = explain(config, anatomy)
    dead = next((each for each in explanation.lints if each.code == "dead-target"), None)
    if explanation.refusal is not None or dead is not None:
        reason = explanation.refusal if dead is None else dead.message
        raise PlacementError(f"the configuration: {reason}")
    return explanation.placement


def _placement(anatomy: Anatomy, fields: LoraFields, adapters: tuple[Adapter, ...]) -> Placement:
    scaling: Scaling = "rslora" if fields.use_rslora else "alpha/r"
    return Placement(anatomy=anatomy, adapters=adapters, scaling=scaling)


def _refused(fields: LoraFields, anatomy: Anatomy, error: RefusedError) -> Explanation:
    """PEFT raises on this configuration, so nothing is adapted."""
    return Explanation(
        placement=_placement(anatomy, fields, ()),
        targets={},
        dropout=fields.lora_dropout,
        refusal=str(error),
        lints=(replace(peft_refuses(str(error)), code=error.code),),
    )


def _by_target(wrapped: Wrapped) -> dict[str, tuple[Site, ...]]:
    """Return the sites that each entry hits, in the order of the configuration."""
    targets = wrapped.given.target_modules
    if targets is None:
        targets = wrapped.fields.target_modules
    entries = (targets,) if isinstance(targets, str) else targets or ()
    found: dict[str, list[Site]] = {entry: [] for entry in entries}
    if isinstance(targets, str):
        found[targets] = [*wrapped.modules.values()]
    else:
        _collect(found, wrapped.modules)
    parameters: dict[str, list[Site]] = {entry: [] for entry in wrapped.fields.target_parameters}
    _collect(parameters, wrapped.parameters)
    return {entry: tuple(sites) for entry, sites in (found | parameters).items()}


def _collect(found: dict[str, list[Site]], hits: Mapping[str, Site]) -> None:
    for name, site in hits.items():
        for entry in (name, *ends(name)):
            if entry in found:
                found[entry].append(site)
