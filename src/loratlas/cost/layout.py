"""Which site stands where in a model's forward pass, and which models can be accounted for?

An account is a sum over blocks, so it needs to know each block whole. Where a block holds
something whose part in the forward pass is not known, there is no account: a sum that leaves
something out would be wrong without a sign of it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from loratlas.anatomy.sites import Anatomy, Family, Site
from loratlas.cost.blueprint import Blueprint

_ATTENTION_PARTS = (
    {"q", "k", "v", "o"},
    {"qkv", "o"},
    {"q", "kv", "o"},
    {"q_down", "q_up", "kv_down", "kv_up", "o"},
    {"q", "kv_down", "kv_up", "o"},
)
_FEED_FORWARD_PARTS = ({"up", "down"}, {"gate", "up", "down"}, {"gate_up", "down"})
_PARTS = {
    Family.ATTENTION: _ATTENTION_PARTS,
    Family.CROSS_ATTENTION: _ATTENTION_PARTS,
    Family.FEED_FORWARD: _FEED_FORWARD_PARTS,
    Family.EXPERT: _FEED_FORWARD_PARTS,
    Family.SHARED_EXPERT: _FEED_FORWARD_PARTS,
    Family.ROUTER: ({""},),
}
# A table of this many rows or fewer tells segments apart, not positions.
_SEGMENTS = 16
# The map that weighs a shared expert has one output, and its place beside the router.
_SHARED_ROUTER = "shared_router"


class UnaccountedError(Exception):
    """The part of something in the forward pass is not known; the message says of what."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One block: its sites by role, and a key that blocks of one shape share."""

    sites: Mapping[str, Site]
    shape: tuple[tuple[str, int, int, int | None, str], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stack:
    """The blocks of one stack and the embeddings that its input is the sum of."""

    name: str
    layers: tuple[Layer, ...]
    embeddings: tuple[Site, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """A model in the order of its forward pass.

    Attributes:
        stacks: the encoder's before the decoder's.
        entry: the map between embeddings and the first block, as ELECTRA's small models have it.
        transforms: maps between the last block and the head.
        head: the head.
    """

    stacks: tuple[Stack, ...]
    entry: Site | None
    transforms: tuple[Site, ...]
    head: Site

    @property
    def vocabulary(self) -> int:
        """Entries of the vocabulary."""
        return self.head.d_out

    def is_position(self, site: Site) -> bool:
        """Return whether an embedding is of positions, looked up once for all rows."""
        return site.d_in != self.vocabulary and site.d_in > _SEGMENTS


def lay_out(anatomy: Anatomy, blueprint: Blueprint) -> Layout:
    """Return a model in the order of its forward pass.

    Raises:
        UnaccountedError: it holds something whose part in that is not known.
    """
    blocks: dict[tuple[str, int], list[Site]] = {}
    for site in anatomy.sites:
        if site.stack is not None and site.layer is not None:
            blocks.setdefault((site.stack, site.layer), []).append(site)
    names = [name for name in ("encoder", "decoder") if name in anatomy.stacks]
    if not names or len(names) < len(anatomy.stacks):
        raise UnaccountedError(f"stacks {', '.join(anatomy.stacks) or 'none'}")
    if len(names) == 1 and blueprint.num_layers not in (None, anatomy.stacks[names[0]]):
        raise UnaccountedError(f"{blueprint.num_layers} blocks that share their maps")
    stacks = tuple(
        Stack(
            name=name,
            layers=tuple(
                _layer(blocks.get((name, n), []), blueprint) for n in range(anatomy.stacks[name])
            ),
            embeddings=tuple(_embeddings(anatomy, name, names)),
        )
        for name in names
    )
    entry = _entry(anatomy, stacks)
    transforms = tuple(_transforms(anatomy, entry))
    return Layout(stacks=stacks, entry=entry, transforms=transforms, head=_head(anatomy))


def _layer(sites: list[Site], blueprint: Blueprint) -> Layer:
    by_role: dict[str, Site] = {}
    for site in sites:
        role = str(site.role)
        if role == Family.EMBEDDING:
            continue
        if role == Family.ROUTER and site.d_out == 1:
            role = _SHARED_ROUTER
        if role in by_role:
            raise UnaccountedError(f"{site.path}: a second {role} in its block")
        by_role[role] = site
    _check_roles(by_role)
    if any(site.role.family is Family.EXPERT for site in by_role.values()) and (
        blueprint.experts_per_token is None
    ):
        raise UnaccountedError("how many experts a token visits")
    shape = tuple((r, s.d_in, s.d_out, s.num_experts, s.kind) for r, s in by_role.items())
    return Layer(sites=by_role, shape=shape)


def _check_roles(by_role: Mapping[str, Site]) -> None:
    parts: dict[Family, set[str]] = {}
    for site in by_role.values():
        parts.setdefault(site.role.family, set()).add(site.role.part)
    for family, found in parts.items():
        if found not in _PARTS.get(family, ()):
            named = next(site for site in by_role.values() if site.role.family is family)
            raise UnaccountedError(f"{named.path}: {family} with {', '.join(sorted(found))}")
    if not {Family.FEED_FORWARD, Family.EXPERT} & parts.keys():
        raise UnaccountedError("a block without a feed-forward part")
    if {Family.FEED_FORWARD, Family.EXPERT} <= parts.keys():
        raise UnaccountedError("a block with a dense feed-forward part beside experts")


def _embeddings(anatomy: Anatomy, stack: str, stacks: list[str]) -> Iterator[Site]:
    """Yield the tables of a stack; with two stacks each has its own, tied or not."""
    for site in anatomy.sites:
        if site.role.family is Family.EMBEDDING and not site.in_block:
            own = stack in site.path.split(".")
            if own if len(stacks) > 1 else True:
                yield site


def _head(anatomy: Anatomy) -> Site:
    heads = [site for site in anatomy.sites if site.role.family is Family.HEAD]
    if len(heads) != 1:
        raise UnaccountedError(f"{len(heads)} heads")
    return heads[0]


def _entry(anatomy: Anatomy, stacks: tuple[Stack, ...]) -> Site | None:
    """Return the only map before the blocks, if it widens what all embeddings give."""
    first = next(number for number, site in enumerate(anatomy.sites) if site.in_block)
    before = [
        site
        for site in anatomy.sites[:first]
        if site.role.family is Family.OTHER and not _is_beside_head(anatomy, site)
    ]
    if len(before) != 1 or len(stacks) > 1 or before[0].kind == "expert":
        return None
    widths = {site.d_out for site in stacks[0].embeddings}
    return before[0] if widths == {before[0].d_in} else None


def _is_beside_head(anatomy: Anatomy, site: Site) -> bool:
    """Return whether a map stands in the head's own module, wherever that was declared."""
    parent, _, _ = _head(anatomy).path.rpartition(".")
    return bool(parent) and site.path.startswith(f"{parent}.")


def _transforms(anatomy: Anatomy, entry: Site | None) -> Iterator[Site]:
    """Yield what stands behind the last block, in the model's order, as BERT's transform does."""
    sites = anatomy.sites
    last = max(number for number, site in enumerate(sites) if site.in_block)
    for number, site in enumerate(sites):
        if site.in_block or site.role.family in (Family.EMBEDDING, Family.HEAD) or site is entry:
            continue
        is_behind = number > last or _is_beside_head(anatomy, site)
        if not is_behind or site.kind == "expert":
            raise UnaccountedError(f"{site.path}: a map before the blocks")
        yield site
