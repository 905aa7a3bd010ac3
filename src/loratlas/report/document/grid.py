"""Where does a site stand in a picture of layers by roles?"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loratlas.anatomy.sites import Anatomy, Site
from loratlas.report.document.charts import names_of

OUTSIDE = "outside"
"""Where a site outside the blocks stands among the layers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """Sites by layer and role.

    Attributes:
        layers: from left to right, `OUTSIDE` last.
        roles: from top to bottom, in the order of the model.
        cells: the sites of every layer and role that has some.
    """

    layers: Sequence[str]
    roles: Sequence[str]
    cells: Mapping[tuple[str, str], Sequence[Site]]

    @property
    def axes(self) -> dict[str, Any]:
        """The axes of a chart whose rows have ``layer`` and ``role``."""
        axis = {"labelAngle": 0, "labelOverlap": True}
        return {
            "x": names_of("layer", self.layers, scale={"domain": self.layers}, axis=axis)
            | {"title": "layer"},
            "y": names_of("role", self.roles, scale={"domain": self.roles}),
        }


def grid_of(anatomy: Anatomy, paths: Collection[str]) -> Grid:
    """Lay out a model.

    Args:
        anatomy: its sites.
        paths: of sites that matter: a site outside the blocks is shown where one of its role is
            among them, one inside always.
    """
    outside = {site.role for site in anatomy.sites if site.path in paths}
    cells: dict[tuple[str, str], list[Site]] = {}
    for site in anatomy.sites:
        if site.in_block or site.role in outside:
            cells.setdefault((_layer(site), _role(site, anatomy)), []).append(site)
    layers = {layer for layer, _ in cells}
    return Grid(
        layers=sorted(layers - {OUTSIDE}, key=int) + sorted(layers & {OUTSIDE}),
        roles=list(dict.fromkeys(role for _, role in cells)),
        cells=cells,
    )


def _layer(site: Site) -> str:
    return OUTSIDE if site.layer is None else str(site.layer)


def _role(site: Site, anatomy: Anatomy) -> str:
    """Return the role of a site; where there are several stacks, the stack before it."""
    several = len(anatomy.stacks) > 1 and site.stack is not None
    return f"{site.stack} {site.role}" if several else str(site.role)
