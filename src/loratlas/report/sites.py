"""How an anatomy and a placement look in the terminal: counts by role, layers as ranges."""

from collections.abc import Iterable, Sequence

from rich.markup import escape
from rich.table import Table

from loratlas.anatomy.sites import Anatomy, Site
from loratlas.placement.placement import Adapter, Placement


def anatomy_summary(anatomy: Anatomy) -> str:
    """Return what a model is, in two lines."""
    stacks = ", ".join(f"{name} of {count} layers" for name, count in anatomy.stacks.items())
    head = "tied to the embedding" if anatomy.tied_head else "not tied"
    return (
        f"{anatomy.model}: {anatomy.architecture} ({anatomy.model_type}), {stacks}, "
        f"{anatomy.num_parameters:,} parameters, head {head}\n"
        f"{len(anatomy.sites)} sites, digest {anatomy.digest[:12]}"
    )


def role_table(sites: Sequence[Site]) -> Table:
    """Return the sites grouped by stack, role and shape."""
    table = Table()
    for header in ("stack", "role", "example path", "kind", "layers"):
        table.add_column(header)
    for header in ("d_in", "d_out", "sites", "parameters per rank"):
        table.add_column(header, justify="right")
    for group in _groups(sites):
        first = group[0]
        table.add_row(
            first.stack or "",
            str(first.role) + (f" ({escape(first.reason)})" if first.reason else ""),
            escape(first.path),
            first.kind + (f" x {first.num_experts}" if first.num_experts else ""),
            layer_ranges(site.layer for site in group),
            f"{first.d_in:,}",
            f"{first.d_out:,}",
            str(len(group)),
            f"{sum(site.parameters_per_rank for site in group):,}",
        )
    return table


def placement_summary(placement: Placement, anatomy: Anatomy) -> str:
    """Return what a placement costs, in one line."""
    count = placement.trainable_parameters
    share = 100 * count / (anatomy.num_parameters + count)
    return (
        f"{anatomy.model}: {len(placement.adapters)} of {len(anatomy.sites)} sites, "
        f"{count:,} trainable parameters, {share:.2f}% of base and adapters"
    )


def placement_table(placement: Placement) -> Table:
    """Return the adapters grouped by stack, role, shape, rank and scale."""
    table = Table()
    for header in ("stack", "role", "example path", "layers"):
        table.add_column(header)
    for header in ("rank", "alpha", "scale", "sites", "parameters"):
        table.add_column(header, justify="right")
    groups: dict[tuple[object, ...], list[Adapter]] = {}
    for adapter in placement.adapters:
        key = (*_key(adapter.site), adapter.rank, adapter.alpha)
        groups.setdefault(key, []).append(adapter)
    for group in groups.values():
        first = group[0]
        table.add_row(
            first.site.stack or "",
            str(first.site.role),
            escape(first.site.path),
            layer_ranges(adapter.site.layer for adapter in group),
            str(first.rank),
            f"{first.alpha:g}",
            f"{placement.scale(first):g}",
            str(len(group)),
            f"{sum(a.rank * a.site.parameters_per_rank for a in group):,}",
        )
    return table


def layer_ranges(layers: Iterable[int | None]) -> str:
    """Return layer indices as ranges: 0, 1, 2, 5 becomes ``0..2, 5``."""
    indices = sorted({layer for layer in layers if layer is not None})
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ", ".join(str(low) if low == high else f"{low}..{high}" for low, high in runs)


def _groups(sites: Sequence[Site]) -> list[list[Site]]:
    groups: dict[tuple[object, ...], list[Site]] = {}
    for site in sites:
        groups.setdefault(_key(site), []).append(site)
    return list(groups.values())


def _key(site: Site) -> tuple[object, ...]:
    return (
        site.stack,
        site.layer is None,
        str(site.role),
        site.kind,
        site.d_in,
        site.d_out,
        site.num_experts,
        site.reason,
    )
