"""Which modules are the blocks of a model, and in which order do they stand?

Blocks are the members of the outermost ModuleLists. Lists of one parent and one length
stand side by side (a list of attentions and a list of feed-forwards) and count as one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import nn
from transformers.pytorch_utils import Conv1D


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a module stands: the index of its stack of blocks and of its block."""

    stack: int
    layer: int


def is_map(module: nn.Module) -> bool:
    """Whether a module is a linear map that LoRA can wrap."""
    return isinstance(module, nn.Linear | Conv1D)


def is_site(module: nn.Module) -> bool:
    """Whether a module is a site of its own."""
    return is_map(module) or isinstance(module, nn.Embedding)


def site_path(path: str, module: nn.Module, parameter: str) -> str:
    """Return the path by which a parameter of a module is known as a site."""
    if is_site(module):
        return path
    return f"{path}.{parameter}" if path else parameter


def parameter_owners(model: nn.Module) -> dict[int, list[str]]:
    """Map each parameter to the sites it belongs to: several when it is tied."""
    owners: dict[int, list[str]] = {}
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(site_path(path, module, name))
    return owners


def block_places(model: nn.Module) -> Mapping[str, Place]:
    """Return the place of every module and parameter that lies in a block, by its path."""
    groups: dict[tuple[str, int], int] = {}
    places: dict[str, Place] = {}
    for parent, members in _block_lists(model, ""):
        stack = groups.setdefault((parent, len(members)), len(groups))
        for layer, (path, block) in enumerate(members):
            place = Place(stack=stack, layer=layer)
            places |= dict.fromkeys((p for p, _ in block.named_modules(prefix=path)), place)
            places |= dict.fromkeys((p for p, _ in block.named_parameters(prefix=path)), place)
    return places


def alike(model: nn.Module) -> Mapping[str, str]:
    """Map the path of each module in a list or dictionary to what it shares with its twins.

    Experts that are modules of their own stand in such containers; only the chosen run.
    Twins have one container, one class and one path inside their member.
    """
    shared: dict[str, str] = {}
    for path, module in model.named_modules():
        if not isinstance(module, nn.ModuleList | nn.ModuleDict):
            continue
        for name, member in module.named_children():
            start = f"{path}.{name}"
            for inner, _ in member.named_modules(prefix=start):
                key = f"{path}.*{inner.removeprefix(start)} of {type(member).__name__}"
                shared[inner] = key  # the innermost container, which comes last, counts
    return shared


def _block_lists(module: nn.Module, path: str) -> Iterator[tuple[str, list[tuple[str, nn.Module]]]]:
    for name, child in module.named_children():
        inner = f"{path}.{name}" if path else name
        if not isinstance(child, nn.ModuleList):
            yield from _block_lists(child, inner)
        elif members := list(_members(child, inner)):
            yield path, members


def _members(modules: nn.ModuleList, path: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield the blocks of a list; a list of lists is one run of blocks."""
    for name, member in modules.named_children():
        inner = f"{path}.{name}"
        if isinstance(member, nn.ModuleList):
            yield from _members(member, inner)
        elif not is_site(member):
            yield inner, member
