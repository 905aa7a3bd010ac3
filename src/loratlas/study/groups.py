"""Into which groups do the sites of a model fall, and which sentence of the language means each?

Brute force tries groups, since sites are too many, and scorers are judged by them: by role, by
layer, or by role and quarter of the depth. No torch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from loratlas.anatomy.sites import Anatomy, Family, Site
from loratlas.errors import PlacementError, RuleError
from loratlas.placement.placement_lints import layer_ranges
from loratlas.placement.resolve import Resolver
from loratlas.placement.rules import parse

By = Literal["role_quarter", "role", "layer"]
BY: tuple[By, ...] = get_args(By)

_QUARTERS = 4
# The word that means this family and no other.
_WORDS = {Family.ATTENTION: "self_attention", Family.FEED_FORWARD: "dense_feed_forward"}


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteGroup:
    """Sites that are tried together.

    Attributes:
        name: such as ``attention.q, layers 0-2``.
        sites: in the order of the model, at least one.
    """

    name: str
    sites: tuple[Site, ...]

    @property
    def parameters_per_rank(self) -> int:
        """Adapter parameters of one unit of rank at each of its sites."""
        return sum(site.parameters_per_rank for site in self.sites)


def group_sites(sites: Sequence[Site], anatomy: Anatomy, by: By) -> tuple[SiteGroup, ...]:
    """Divide sites into groups.

    Sites outside the blocks go by their role alone. The quarters of a stack are those of
    ``layers(0%..25%)`` and so on: layer i of L belongs to quarter ⌊4i / L⌋.

    Args:
        sites: what is divided, in the order of the model.
        anatomy: the model.
        by: how.

    Returns:
        groups in the order in which the model has their first sites.
    """
    label = _LABELS[by]
    found: dict[tuple[object, ...], list[Site]] = {}
    for site in sites:
        outside = (str(site.role),)
        found.setdefault(label(site, anatomy) if site.in_block else outside, []).append(site)
    return tuple(
        SiteGroup(name=_name(group, anatomy, by), sites=tuple(group)) for group in found.values()
    )


def rule_of(sites: Sequence[Site], anatomy: Anatomy, whole: str | None = None) -> str:
    """Return a rule that selects exactly these sites.

    Args:
        sites: at least one.
        anatomy: the model.
        whole: a rule of one part; where it holds more than these sites, what is left out is taken
            from it.
    """
    paths = frozenset(site.path for site in sites)
    for text in _sentences(sites, anatomy, whole):
        if _selected(text, anatomy) == paths:
            return text
    return f"names({', '.join(site.path for site in sites)})"


def _sentences(sites: Sequence[Site], anatomy: Anatomy, whole: str | None) -> list[str]:
    """Return what may mean these sites, the better first."""
    found = [text for text in (_words(sites, anatomy),) if text]
    selected = None if whole is None else _selected(whole, anatomy)
    if selected:
        paths = {site.path for site in sites}
        rest = [site for site in anatomy.sites if site.path in selected - paths]
        found += [f"({whole}) - ({rule_of(rest, anatomy)})"] if rest else [str(whole)]
    return found


def _words(sites: Sequence[Site], anatomy: Anatomy) -> str:
    """Return the roles of sites at their layers, where all roles have the same layers."""
    roles = dict.fromkeys(site.role for site in sites)
    words = [
        f"{_WORDS.get(role.family, role.family)}{'.' * bool(role.part)}{role.part}"
        for role in roles
    ]
    text = " | ".join(words)
    layers = sorted({site.layer for site in sites if site.layer is not None})
    stacks = {site.stack for site in sites}
    if not layers:
        return text
    text = f"({text})" if len(words) > 1 else text
    if len(stacks) == 1 and len(anatomy.stacks) > 1:
        text += f" @ {stacks.pop()}"
    return f"{text} @ layers({layer_ranges(layers)})"


def _selected(text: str, anatomy: Anatomy) -> frozenset[str]:
    """Return what a rule of one part without a rank selects; nothing where it is no such rule."""
    try:
        rule = parse(text)
        if len(rule.parts) != 1 or rule.parts[0].rank is not None:
            return frozenset()
        return Resolver(anatomy=anatomy, root=Path()).select(rule.parts[0].expression)
    except (RuleError, PlacementError):
        return frozenset()


def _by_role(site: Site, anatomy: Anatomy) -> tuple[object, ...]:  # noqa: ARG001
    return (site.stack, str(site.role))


def _by_layer(site: Site, anatomy: Anatomy) -> tuple[object, ...]:  # noqa: ARG001
    return (site.stack, site.layer)


def _by_quarter(site: Site, anatomy: Anatomy) -> tuple[object, ...]:
    assert site.stack is not None
    assert site.layer is not None
    return (site.stack, str(site.role), _QUARTERS * site.layer // anatomy.stacks[site.stack])


_LABELS: dict[By, Callable[[Site, Anatomy], tuple[object, ...]]] = {
    "role_quarter": _by_quarter,
    "role": _by_role,
    "layer": _by_layer,
}


def _name(sites: Sequence[Site], anatomy: Anatomy, by: By) -> str:
    first = sites[0]
    if not first.in_block:
        return str(first.role)
    stack = f"{first.stack} " if len(anatomy.stacks) > 1 else ""
    if by == "role":
        return f"{stack}{first.role}"
    numbers = sorted({site.layer for site in sites if site.layer is not None})
    word = "layers" if len(numbers) > 1 else "layer"
    layers = f"{stack}{word} {layer_ranges(numbers)}"
    return layers if by == "layer" else f"{first.role}, {layers}"
