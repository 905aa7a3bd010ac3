"""What would PEFT wrap? The fields of a configuration and an anatomy → sites, ranks, alphas.

Follows PEFT 0.21 step by step (`BaseTuner.inject_adapter`, `check_target_module_exists` and
`_find_minimal_target_modules` in peft/tuners/tuners_utils.py, `get_pattern_key` in
peft/utils/other.py), its surprises included; tests hold the outcome against PEFT itself.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from loratlas.anatomy.sites import Anatomy, Site
from loratlas.placement.patterns import matches
from loratlas.placement.peft_fields import LoraFields
from loratlas.placement.peft_names import (
    ALL_LINEAR,
    Names,
    RefusedError,
    all_linear,
    excluded,
    names_of,
)
from loratlas.placement.peft_renaming import renamed
from loratlas.placement.peft_tables import DEFAULT_TARGETS, SHORTENED_FROM, mamba_refused
from loratlas.placement.placement import Adapter
from loratlas.placement.placement_lints import layer_ranges
from loratlas.placement.resolve import ends

_PATTERN_FORM = r"(.*\.)?({})$"
PatternHits = Mapping[str, Sequence[int]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Wrapped:
    """What PEFT wraps.

    Attributes:
        given: the fields as they were given.
        fields: the fields as PEFT reads them: defaults filled in, experts renamed.
        modules: sites that ``target_modules`` hits, by the module's name.
        parameters: sites that ``target_parameters`` hits, by the parameter's name.
        layers: the layer that PEFT finds in the name of each module, where it looks for one.
        patterns: for ``rank_pattern`` and ``alpha_pattern``, the numbers of the keys that match
            each hit, in their order; the first decides.
        adapters: rank and alpha of every hit.
    """

    given: LoraFields
    fields: LoraFields
    modules: Mapping[str, Site]
    parameters: Mapping[str, Site]
    layers: Mapping[str, int | None]
    patterns: Mapping[str, PatternHits]
    adapters: tuple[Adapter, ...]


def wrap(fields: LoraFields, anatomy: Anatomy) -> Wrapped:
    """Return what PEFT wraps in a model.

    Raises:
        RefusedError: PEFT would raise.
        PlacementError: a regular expression is not valid, or takes too long.
    """
    _refuse_contradictions(fields)
    names = names_of(anatomy)
    read = _with_defaults(renamed(fields, names, anatomy), anatomy)
    keys = [*names.modules, *names.containers]
    found, layers = _target_modules(read, keys, names, anatomy)
    _refuse_modules(found, names, anatomy)
    modules = {name: site for name, site in names.modules.items() if name in found}
    parameters = _target_parameters(read, names)
    if not modules and not parameters:
        raise RefusedError(f"it hits nothing{_why_nothing(read, layers)}")
    _refuse_parameters(read, modules, parameters, anatomy)
    hits = {**modules, **parameters}
    found_patterns = _pattern_hits(read, hits)
    return Wrapped(
        given=fields,
        fields=read,
        modules=modules,
        parameters=parameters,
        layers=layers,
        patterns=found_patterns,
        adapters=_adapters(read, hits, found_patterns),
    )


def _why_nothing(fields: LoraFields, layers: Mapping[str, int | None]) -> str:
    """Say why the chosen layers leave nothing of what the targets name; "" where none are named."""
    if not layers:
        return ""
    there = [layer for layer in layers.values() if layer is not None]
    if not there:
        return (
            ": layers_to_transform takes the number behind two names, as in model.layers.3, for "
            f"the layer, and finds none in {next(iter(layers))}"
        )
    chosen = ", ".join(map(str, sorted(_chosen(fields))[:5]))
    return (
        f": layers_to_transform is {chosen}, and the targets stand in layers {layer_ranges(there)}"
    )


def _refuse_contradictions(fields: LoraFields) -> None:
    """Refuse what `LoraConfig.__post_init__` refuses, and a dropout that torch does."""
    if fields.lora_dropout > 1:
        raise RefusedError(
            f"lora_dropout is {fields.lora_dropout:g}, and a dropout above 1 is none that torch has"
        )
    if isinstance(fields.target_modules, str):
        for key in ("layers_to_transform", "layers_pattern"):
            if getattr(fields, key) is not None:
                raise RefusedError(
                    f"{key} cannot be used when target_modules is one text "
                    f"({fields.target_modules!r}); it needs a list of names"
                )
    if fields.layers_pattern and fields.layers_to_transform is None:
        raise RefusedError("layers_pattern needs layers_to_transform beside it")


def _with_defaults(fields: LoraFields, anatomy: Anatomy) -> LoraFields:
    if fields.target_modules is not None:
        return fields
    defaults = DEFAULT_TARGETS.get(anatomy.model_type)
    if defaults is None:
        raise RefusedError(
            f"target_modules is missing, and PEFT has no default for model_type "
            f"{anatomy.model_type}; list the modules"
        )
    return replace(fields, target_modules=defaults)


# target_modules -------------------------------------------------------------------------


def _target_modules(
    fields: LoraFields, keys: list[str], names: Names, anatomy: Anatomy
) -> tuple[set[str], Mapping[str, int | None]]:
    """Return the keys that are hit, and the layer found in each where layers are chosen."""
    targets = fields.target_modules
    left_out = excluded(fields, keys)
    if isinstance(targets, str) and targets.lower() == ALL_LINEAR:
        targets = tuple(all_linear(names, anatomy))
    if isinstance(targets, str):
        hits = matches([targets], keys, field="target_modules", whole=True)
        return {name for name, found in hits.items() if found} - left_out, {}
    wanted = set(targets or ())
    if len(wanted) >= SHORTENED_FROM:
        wanted = shortened(wanted, keys)
    exact = {key for key in keys if key in wanted}
    by_suffix = [key for key in keys if key not in wanted and not wanted.isdisjoint(ends(key))]
    layers = _layers_of(fields, by_suffix)
    if layers is not None:
        chosen = _chosen(fields)
        by_suffix = [key for key in by_suffix if layers[key] in chosen]
    return (exact | set(by_suffix)) - left_out, layers or {}


def _chosen(fields: LoraFields) -> set[int]:
    layers = fields.layers_to_transform
    return {layers} if isinstance(layers, int) else set(layers or ())


def _layers_of(fields: LoraFields, keys: list[str]) -> dict[str, int | None] | None:
    """Return the layer that PEFT finds in each name; None where all layers are meant."""
    if fields.layers_to_transform is None or fields.layers_to_transform == ():
        return None
    if not fields.layers_pattern:
        found = {key: re.match(r".*?\.[^.]*\.(?P<idx>\d+)\.", key) for key in keys}
        return {key: int(match["idx"]) if match else None for key, match in found.items()}
    hits = matches(
        fields.layers_pattern, keys, field="layers_pattern", form=r"(?:^|.*?\.){}\.(?P<idx>\d+)\."
    )
    first = {key: found[0].index if found else None for key, found in hits.items()}
    return {key: None if index is None else int(index) for key, index in first.items()}


def shortened(targets: set[str], keys: Iterable[str]) -> set[str]:
    """Return the shorter suffixes by which PEFT replaces a long list of targets.

    Args:
        targets: the list.
        keys: names of all modules.
    """
    others = [key for key in keys if targets.isdisjoint((key, *ends(key)))]
    taken = {suffix for other in others for suffix in (other, *ends(other))}
    required: set[str] = set()
    for target in sorted(targets, key=_suffixes):
        for suffix in _suffixes(target):
            covered = suffix in required or suffix in taken
            if not covered and required.isdisjoint(ends(target)):
                required.add(suffix)
                break
    return required if required and len(required) < len(targets) else targets


def _suffixes(name: str) -> list[str]:
    return [name, *ends(name)][::-1]


def _refuse_modules(found: set[str], names: Names, anatomy: Anatomy) -> None:
    containers = sorted(found & names.containers)
    if containers:
        raise RefusedError(
            f"target_modules hits {containers[0]}, which is no linear map or embedding but a "
            "module that holds others or bare parameters; PEFT cannot adapt it"
        )
    refused = mamba_refused(found, anatomy.model_type)
    if refused:
        raise RefusedError(
            f"PEFT does not adapt out_proj in models of type {anatomy.model_type}, as "
            f"{refused[0]}: their kernels read its weight directly"
        )


# target_parameters ----------------------------------------------------------------------


def _target_parameters(fields: LoraFields, names: Names) -> dict[str, Site]:
    wanted = set(fields.target_parameters)
    if not wanted:
        return {}
    return {
        name: site
        for name, site in names.parameters.items()
        if not wanted.isdisjoint((name, *ends(name)))
    }


def _refuse_parameters(
    fields: LoraFields,
    modules: Mapping[str, Site],
    parameters: Mapping[str, Site],
    anatomy: Anatomy,
) -> None:
    holders = [*modules, *(name.rsplit(".", 1)[0] for name in parameters)]
    saved = [name for name in holders if name.endswith(fields.modules_to_save)]
    if saved:
        raise RefusedError(f"modules_to_save ends the name of {saved[0]}, which is adapted")
    if not parameters:
        return
    first = next(iter(parameters))
    both = [site.path for site in parameters.values() if site.path in modules]
    if both:
        raise RefusedError(
            f"{both[0]} is hit both by target_modules and, as a parameter, by target_parameters"
        )
    if fields.lora_dropout:
        raise RefusedError(
            f"adapters of parameters, such as {first}, take no dropout, and lora_dropout is "
            f"{fields.lora_dropout:g}",
            code="expert-dropout",
        )
    refused = {
        "use_dora": fields.use_dora,
        "lora_bias": fields.lora_bias,
        "fan_in_fan_out": _fan_in_fan_out(fields, modules),
    }
    for name, value in refused.items():
        if value:
            raise RefusedError(f"adapters of parameters, such as {first}, take no {name}")
    modules_of = [name.rsplit(".", 1)[0] for name in parameters]
    if mamba := mamba_refused(modules_of, anatomy.model_type):
        raise RefusedError(f"PEFT does not adapt {mamba[0]} in models of type {anatomy.model_type}")


def _fan_in_fan_out(fields: LoraFields, modules: Mapping[str, Site]) -> bool:
    """Return the flag as it stands after the modules: PEFT sets it to what the last one needs."""
    kinds = [site.kind for site in modules.values() if site.kind in ("linear", "conv1d")]
    return kinds[-1] == "conv1d" if kinds else fields.fan_in_fan_out


# Ranks ----------------------------------------------------------------------------------


def _adapters(
    fields: LoraFields, hits: Mapping[str, Site], found: Mapping[str, PatternHits]
) -> tuple[Adapter, ...]:
    ranks, alphas = list(fields.rank_pattern.values()), list(fields.alpha_pattern.values())
    adapters = []
    for name, site in hits.items():
        first_rank, first_alpha = found["rank_pattern"][name], found["alpha_pattern"][name]
        rank = ranks[first_rank[0]] if first_rank else fields.r
        alpha = alphas[first_alpha[0]] if first_alpha else fields.lora_alpha
        if rank < 1:
            raise RefusedError(
                f"the rank of {name} is {rank}, and a rank is at least 1; leave the module out"
            )
        adapters.append(Adapter(site=site, rank=rank, alpha=alpha))
    return tuple(adapters)


def _pattern_hits(fields: LoraFields, names: Iterable[str]) -> dict[str, PatternHits]:
    """Return, by field, which patterns match each name; the first of them decides."""
    listed = list(names)
    both = {"rank_pattern": fields.rank_pattern, "alpha_pattern": fields.alpha_pattern}
    found: dict[str, PatternHits] = {}
    for field, patterns in both.items():
        hits = matches(list(patterns), listed, field=field, form=_PATTERN_FORM)
        found[field] = {name: [hit.number for hit in each] for name, each in hits.items()}
    return found
