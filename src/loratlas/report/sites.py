"""How an anatomy and a placement look in the terminal: counts by role, layers as ranges."""

from collections.abc import Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from loratlas.anatomy.sites import Anatomy, Site
from loratlas.placement.placement import Adapter, Placement, PlacementDiff
from loratlas.placement.placement_lints import layer_ranges

_MOST_TARGETS = 40
_LONGEST_TARGET = 80


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


def target_table(targets: Mapping[str, Sequence[Site]]) -> Table:
    """Return what each entry of a LoRA configuration hits; of a long list the first entries."""
    table = Table()
    for header in ("target", "role", "layers"):
        table.add_column(header)
    table.add_column("sites", justify="right")
    for entry, sites in list(targets.items())[:_MOST_TARGETS]:
        shown = escape(entry if len(entry) <= _LONGEST_TARGET else f"{entry[:_LONGEST_TARGET]}...")
        for group in _by_role(sites) or [[]]:
            table.add_row(shown, *_role_cells(group), str(len(group)))
            shown = ""
    if len(targets) > _MOST_TARGETS:
        table.add_row(f"... {len(targets)} in all", "", "", "")
    return table


def diff_summary(left: Placement, right: Placement, diff: PlacementDiff) -> str:
    """Return how two placements differ, in one line."""
    if not diff:
        return f"{left.anatomy.model}: no difference, {len(left.adapters)} sites"
    return (
        f"{left.anatomy.model}: {len(diff.only_left)} sites only left, {len(diff.only_right)} only "
        f"right, {len(diff.changed)} with another rank or alpha; trainable parameters "
        f"{left.trainable_parameters:,} and {right.trainable_parameters:,}"
    )


def diff_table(diff: PlacementDiff) -> Table:
    """Return the sites that differ, by role and layer."""
    table = Table()
    for header in ("difference", "stack", "role", "layers"):
        table.add_column(header)
    for header in ("left: rank, alpha", "right: rank, alpha", "sites"):
        table.add_column(header, justify="right")
    pairs: list[tuple[str, Adapter | None, Adapter | None]] = [
        *(("only left", adapter, None) for adapter in diff.only_left),
        *(("only right", None, adapter) for adapter in diff.only_right),
        *(("changed", left, right) for left, right in diff.changed),
    ]
    groups: dict[tuple[str, ...], list[Site]] = {}
    for kind, left, right in pairs:
        one = left or right
        assert one is not None
        key = (kind, one.site.stack or "", str(one.site.role), _strength(left), _strength(right))
        groups.setdefault(key, []).append(one.site)
    for (kind, stack, role, mine, theirs), sites in groups.items():
        layers = layer_ranges(site.layer for site in sites)
        table.add_row(kind, stack, role, layers, mine, theirs, str(len(sites)))
    return table


def _strength(adapter: Adapter | None) -> str:
    return "" if adapter is None else f"{adapter.rank}, {adapter.alpha:g}"


def _by_role(sites: Sequence[Site]) -> list[list[Site]]:
    groups: dict[tuple[str | None, str], list[Site]] = {}
    for site in sites:
        groups.setdefault((site.stack, str(site.role)), []).append(site)
    return list(groups.values())


def _role_cells(sites: Sequence[Site]) -> tuple[str, str]:
    if not sites:
        return "nothing", ""
    first = sites[0]
    stack = f" ({first.stack})" if first.stack else ""
    return f"{first.role}{stack}", layer_ranges(site.layer for site in sites)


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
