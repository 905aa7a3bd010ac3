"""How do sites look in a notebook? A table of layers and roles, as text in HTML.

Pure string building: every text from a model is escaped, and nothing is imported for it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loratlas.anatomy.sites import Site

Cell = Callable[["Sequence[Site]"], str]
_BORDER = "border:1px solid #8886;padding:1px 6px"
_OUTSIDE = "outside the blocks"


def grid(title: str, sites: "Sequence[Site]", cell: Cell) -> str:
    """Return an HTML table: a row for each layer of each stack, a column for each role.

    Args:
        title: what stands above the table, as plain text.
        sites: what is shown, in the order of the model.
        cell: gives the plain text for the sites of one layer and role; there is at least one.
    """
    roles = list(dict.fromkeys(str(site.role) for site in sites))
    rows: dict[str, dict[str, list[Site]]] = {}
    for site in _inside_first(sites):
        rows.setdefault(_row(site), {}).setdefault(str(site.role), []).append(site)
    head = "".join(map(_heading, ["", *roles]))
    body = "".join(_line(name, cells, roles, cell) for name, cells in rows.items())
    return (
        f"<div><div>{escape(title)}</div><table style='border-collapse:collapse'>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _inside_first(sites: "Iterable[Site]") -> "list[Site]":
    return sorted(sites, key=lambda site: not site.in_block)


def _row(site: "Site") -> str:
    return f"{site.stack} {site.layer}" if site.in_block else _OUTSIDE


def _line(
    name: str, cells: "Mapping[str, Sequence[Site]]", roles: Sequence[str], cell: Cell
) -> str:
    shown = (cell(cells[role]) if role in cells else "" for role in roles)
    data = "".join(f"<td style='{_BORDER}'>{escape(text)}</td>" for text in shown)
    return f"<tr>{_heading(name)}{data}</tr>"


def _heading(text: str) -> str:
    return f"<th style='{_BORDER}'>{escape(text)}</th>"


def shapes(sites: "Sequence[Site]") -> str:
    """Return the shapes of sites as ``768 x 3072``, with their number where it is not 1."""
    counts: dict[str, int] = {}
    for site in sites:
        shape = f"{site.d_in} x {site.d_out}"
        counts[shape] = counts.get(shape, 0) + (site.num_experts or 1)
    return ", ".join(f"{shape} ({n})" if n > 1 else shape for shape, n in counts.items())
