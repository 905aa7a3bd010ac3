"""Which sites get an adapter of zeros, because a consumer wants them filled?

Servers join maps that read the same input: q, k and v into one, gate and up into another. Some of
them want an adapter for every part of a map where one part has one.
"""

from collections.abc import Iterable

from loratlas.anatomy.sites import Site
from loratlas.errors import ExportError, RequestError
from loratlas.placement.placement import Adapter, Placement, place

FUSED = "fused"
_JOINED = ({"q", "k", "v"}, {"gate", "up"})


def uniform(placement: Placement, fill: str | None = None) -> Placement:
    """Return a placement at the highest rank everywhere, with scale 1, and filled sites.

    Args:
        placement: what was trained.
        fill: ``fused`` for the other parts of maps that servers join where one part is adapted, a
            rule for its sites, None for nothing.

    Raises:
        ExportError: the rule cannot be read, or does not fit the model.
    """
    rank = max(adapter.rank for adapter in placement.adapters)
    sites = {adapter.site.path: adapter.site for adapter in placement.adapters}
    sites |= {site.path: site for site in _filled(placement, fill)}
    return Placement(
        anatomy=placement.anatomy,
        adapters=tuple(Adapter(site=site, rank=rank, alpha=rank) for site in sites.values()),
        scaling="alpha/r",
    )


def _filled(placement: Placement, fill: str | None) -> Iterable[Site]:
    if fill is None:
        return []
    if fill == FUSED:
        return _joined(placement)
    try:
        return [adapter.site for adapter in place(placement.anatomy, fill).adapters]
    except RequestError as error:
        raise ExportError(f"--fill takes {FUSED} or a rule: {error}") from error


def _joined(placement: Placement) -> Iterable[Site]:
    adapted = {adapter.site.path for adapter in placement.adapters}
    groups: dict[tuple[object, ...], list[Site]] = {}
    for site in placement.anatomy.sites:
        group = _group(site)
        if group is not None:
            groups.setdefault(group, []).append(site)
    for sites in groups.values():
        if any(site.path in adapted for site in sites):
            yield from sites


def _group(site: Site) -> tuple[object, ...] | None:
    """Return what the parts of one joined map have in common, None where nothing is joined.

    The module that holds them tells two blocks of one layer apart, such as two attentions.
    """
    joined = next((at for at, parts in enumerate(_JOINED) if site.role.part in parts), None)
    holder = site.path.rpartition(".")[0]
    return None if joined is None else (site.stack, site.layer, site.role.family, holder, joined)


def num_filled(placement: Placement, filled: Placement) -> int:
    """Return how many sites have an adapter of zeros."""
    return len(filled.adapters) - len(placement.adapters)
