"""Where does a placement begin to differ from its frozen base?

Below that place every trial computes the same as the base, and needs no gradient.
"""

from typing import NamedTuple

from loratlas.anatomy.sites import Family, Site
from loratlas.placement.placement import Placement

_ATTENTION_OUT, _FEED_FORWARD_IN, _FEED_FORWARD_OUT = 1, 2, 3


class Entry(NamedTuple):
    """Where a trial begins to differ: a layer, and how far into its block.

    Layers are counted over all stacks, in the order in which tokens pass them; adapters on the
    head alone begin behind the last.
    """

    layer: int
    depth: int


def entry_of(placement: Placement) -> Entry:
    """Return where a placement begins to differ from its base.

    A site outside the blocks, other than the head, counts as before all of them.
    """
    return min(_entry(adapter.site, placement) for adapter in placement.adapters)


def _entry(site: Site, placement: Placement) -> Entry:
    stacks = placement.anatomy.stacks
    if site.role.family is Family.HEAD:
        return Entry(sum(stacks.values()), 0)
    if site.layer is None or site.stack is None:
        return Entry(0, 0)
    # An encoder is passed before the decoder that reads it.
    before = stacks.get("encoder", 0) if site.stack == "decoder" else 0
    return Entry(before + site.layer, _depth(site))


def _depth(site: Site) -> int:
    """Return how far into its block a site stands; sites of one depth read the same tensor."""
    if site.role.family is Family.ATTENTION:
        return _ATTENTION_OUT if site.role.part == "o" else 0
    if site.role.family in (Family.FEED_FORWARD, Family.SHARED_EXPERT):
        return _FEED_FORWARD_OUT if site.role.part == "down" else _FEED_FORWARD_IN
    return 0
