"""Which names does PEFT look at in a model, and how does it read one text as targets?

An anatomy lists the maps, embeddings and expert parameters of a model, and by their paths the
modules that hold them. It does not list other modules, such as norms: a target that names only
those hits nothing here, and is an error in PEFT.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from loratlas.anatomy.sites import Anatomy, Family, Site
from loratlas.errors import PlacementError
from loratlas.placement.patterns import matches
from loratlas.placement.peft_config import parameter_name
from loratlas.placement.peft_fields import LoraFields
from loratlas.placement.resolve import ends

ALL_LINEAR = "all-linear"


class RefusedError(PlacementError):
    """PEFT would raise on this configuration; `code` is that of the lint that says so."""

    def __init__(self, message: str, code: str = "peft-refuses") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, kw_only=True, slots=True)
class Names:
    """What PEFT can look for in a model, by name.

    Attributes:
        modules: linear maps and embeddings.
        containers: modules that hold others, or bare parameters; PEFT cannot adapt them.
        parameters: weights of the modules, and bare parameters.
    """

    modules: Mapping[str, Site]
    containers: frozenset[str]
    parameters: Mapping[str, Site]


def names_of(anatomy: Anatomy) -> Names:
    """Return the names that PEFT knows the sites of a model by."""
    modules = {site.path: site for site in anatomy.sites if site.kind != "expert"}
    containers = {name for site in anatomy.sites for name in _holders(site.path)}
    return Names(
        modules=modules,
        containers=frozenset(containers - modules.keys()),
        parameters={parameter_name(site): site for site in anatomy.sites},
    )


def _holders(path: str) -> Iterable[str]:
    while "." in path:
        path = path.rsplit(".", 1)[0]
        yield path


def all_linear(names: Names, anatomy: Anatomy) -> list[str]:
    """Return what ``all-linear`` means: every linear map but the head."""
    heads = {site.path for site in anatomy.sites if site.role.family is Family.HEAD}
    linear = (path for path, site in names.modules.items() if site.kind != "embedding")
    return [path for path in linear if path not in heads]


def by_expression(fields: LoraFields, expression: str, keys: Iterable[str]) -> set[str]:
    """Return the keys that one regular expression of targets hits, excluded ones left out."""
    listed = list(keys)
    hits = matches([expression], listed, field="target_modules", whole=True)
    return {name for name, found in hits.items() if found} - excluded(fields, listed)


def excluded(fields: LoraFields, keys: list[str]) -> set[str]:
    """Return the keys that ``exclude_modules`` and ``modules_to_save`` leave out."""
    out: set[str] = set()
    exclude = fields.exclude_modules
    if isinstance(exclude, str):
        hits = matches([exclude], keys, field="exclude_modules", whole=True) if exclude else {}
        out = {name for name, found in hits.items() if found}
    elif exclude:
        entries = set(exclude)
        out = {key for key in keys if not entries.isdisjoint((key, *ends(key)))}
    if fields.modules_to_save:
        form = r"(^|.*\.){}($|\..*)"
        saved = matches(fields.modules_to_save, keys, field="modules_to_save", form=form)
        out |= {name for name, found in saved.items() if found}
    return out
