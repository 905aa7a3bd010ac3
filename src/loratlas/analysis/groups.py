"""Into which groups of sites do the placements of a study divide a model?

Sites are grouped by role or by layer. Groups that every placement adapts to the same share cannot
be told apart by the study, whatever the analysis, so they are put together: a study of
``attention`` and ``feed_forward`` knows of two groups of roles, and one that splits the layers in
halves of two groups of layers. Groups that no placement adapts are none.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from loratlas.anatomy.sites import Site

By = Literal["role", "layer"]
Ranks = Mapping[str, int]
"""The rank of each adapted site by its path."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Sites whose adapters come and go together in the placements of a study.

    Attributes:
        name: such as ``feed_forward``, ``attention.q + attention.v`` or ``layers 0-2``.
        paths: those of its sites that some placement adapts.
        shares: of those, how many each placement adapts, 0 to 1, by its name.
    """

    name: str
    paths: frozenset[str]
    shares: Mapping[str, float]


def groups_of(
    placements: Mapping[str, Ranks], sites: Mapping[str, Site], by: By
) -> tuple[Group, ...]:
    """Divide the adapted sites of a study.

    Args:
        placements: the rank of each adapted site, by placement.
        sites: of the model, by path.
        by: role or layer; sites outside the layers go by their role.

    Returns:
        groups in the order in which the model has their first sites.
    """
    adapted = {path for ranks in placements.values() for path in ranks}
    labelled: dict[tuple[str, str], list[str]] = {}
    for path, site in sites.items():
        if path in adapted:
            labelled.setdefault(_label(site, by), []).append(path)
    alike: dict[tuple[float, ...], list[tuple[str, str]]] = {}
    for label, paths in labelled.items():
        shares = tuple(_share(paths, ranks) for ranks in placements.values())
        alike.setdefault(shares, []).append(label)
    families = _by_first(labelled)
    return tuple(
        Group(
            name=_name(labels, families, by),
            paths=frozenset(path for label in labels for path in labelled[label]),
            shares=dict(zip(placements, shares, strict=True)),
        )
        for shares, labels in alike.items()
    )


def _label(site: Site, by: By) -> tuple[str, str]:
    """Return the family or stack of a site, and its role or layer."""
    if by == "role" or site.layer is None:
        return str(site.role.family), str(site.role)
    return f"{site.stack} layer", str(site.layer)


def _share(paths: Sequence[str], ranks: Ranks) -> float:
    return sum(path in ranks for path in paths) / len(paths)


def _by_first(labels: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for first, second in labels:
        found.setdefault(first, []).append(second)
    return found


def _name(labels: Sequence[tuple[str, str]], families: Mapping[str, Sequence[str]], by: By) -> str:
    names = []
    stacks = [first for first in families if first.endswith(" layer")]
    for first, parts in _by_first(labels).items():
        if first in stacks:
            stack = "" if len(stacks) == 1 else f"{first.removesuffix(' layer')} "
            names.append(f"{stack}layer{'s' if len(parts) > 1 else ''} {_runs(map(int, parts))}")
        elif len(parts) == len(families[first]) and by == "role":
            names.append(first)
        else:
            names.extend(parts)
    return " + ".join(names)


def _runs(numbers: Iterable[int]) -> str:
    """Return numbers as runs: ``0-2, 5``."""
    runs = groupby(enumerate(sorted(numbers)), key=lambda pair: pair[1] - pair[0])
    ends = [[number for _, number in run] for _, run in runs]
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in ends)
