"""What does PEFT make of the older names of experts? Fields of a configuration → fields.

Transformers 5 holds the experts of many models in stacked parameters, where earlier versions had
a module for each. PEFT takes a target that ends in an older name for the parameter, in every
layer (`_convert_peft_config_moe` in peft/utils/transformers_weight_conversion.py).
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from loratlas.anatomy.sites import Anatomy
from loratlas.placement.peft_fields import LoraFields
from loratlas.placement.peft_names import (
    ALL_LINEAR,
    Names,
    RefusedError,
    all_linear,
    by_expression,
)
from loratlas.placement.peft_tables import FUSED, RENAMED_EXPERTS


def renamed(fields: LoraFields, names: Names, anatomy: Anatomy) -> LoraFields:
    """Turn the older names of experts into parameters, where PEFT does; all layers are meant."""
    table = RENAMED_EXPERTS.get(anatomy.model_type)
    if table is None:
        return fields
    targets = fields.target_modules
    if isinstance(targets, str):
        targets = tuple(sorted(_leaves(fields, targets, names, table, anatomy)))
        if not targets:
            return fields
    old = {target: _old_name(target, table) for target in targets or ()}
    parameters = {table[name] for name in old.values() if name is not None}
    doubled = _fused({name for name in old.values() if name}, table)
    ranks = {doubled: fields.r * 2} if doubled else {}
    alphas = {doubled: fields.lora_alpha * 2} if doubled else {}
    return replace(
        fields,
        target_modules=tuple(target for target, name in old.items() if name is None),
        target_parameters=tuple(sorted(parameters.union(fields.target_parameters))),
        rank_pattern={**fields.rank_pattern, **ranks},
        alpha_pattern={**fields.alpha_pattern, **alphas},
    )


def _leaves(
    fields: LoraFields, targets: str, names: Names, table: Mapping[str, str], anatomy: Anatomy
) -> set[str]:
    """Return the last names of what one text hits; PEFT then looks for them in every layer."""
    if targets.lower() == ALL_LINEAR:
        linear = all_linear(names, anatomy)
        return {name.rsplit(".", 1)[-1] for name in linear} | table.keys()
    real = [*names.modules, *names.containers, *names.parameters]
    hit = {key.rsplit(".", 1)[-1] for key in by_expression(fields, targets, real)}
    older = {
        f"{path.rsplit('.', 1)[0]}.{name}": name
        for name, new in table.items()
        for path in names.parameters
        if path.rsplit(".", 1)[-1] == new
    }
    return hit | {older[key] for key in by_expression(fields, targets, older)}


def _old_name(target: str, table: Mapping[str, str]) -> str | None:
    last = target.rsplit(".", 1)[-1]
    return last if last in table else None


def _fused(present: set[str], table: Mapping[str, str]) -> str | None:
    """Return the pattern for which PEFT doubles the rank, None where nothing is fused."""
    parts = [old for old, new in table.items() if new == FUSED]
    given = present.intersection(parts)
    if not given:
        return None
    missing = sorted(set(parts) - given)
    if missing:
        raise RefusedError(
            f"this model holds {' and '.join(parts)} of its experts in one parameter, {FUSED}: "
            f"{', '.join(sorted(given))} cannot be targeted without {', '.join(missing)}"
        )
    return rf".*\.{re.escape(FUSED)}"
