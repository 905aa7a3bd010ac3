"""How the scores of a model's sites look in the terminal: by role and layer."""

from collections.abc import Mapping, Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from loratlas.allocate.table import ScoreTable, ScoringCost
from loratlas.anatomy.sites import Anatomy, Site
from loratlas.report.narrow import UNKNOWN

_OUTSIDE = "outside the blocks"


def score_title(table: ScoreTable) -> str:
    """Return what the values are, in one line."""
    better = "higher" if table.higher_is_better else "lower"
    return f"{table.model} by {table.method}: {table.unit}, {better} is better"


def score_grid(table: ScoreTable, anatomy: Anatomy) -> Table:
    """Return the values, a line a layer and a column a role; sites of one cell are averaged."""
    values = {score.path: score.value for score in table.scores}
    sites = [anatomy.by_path[path] for path in values]
    roles = list(dict.fromkeys(str(site.role) for site in sites))
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    grid.add_column("layer")
    for role in roles:
        # A break where the terminal is narrow: the family above, the part below.
        grid.add_column(escape(role.replace(".", ".\n", 1)), justify="right", no_wrap=True)
    for name, cells in _lines(sites, len(anatomy.stacks) > 1).items():
        shown = [_cell([values[site.path] for site in cells.get(role, ())]) for role in roles]
        grid.add_row(escape(name), *shown)
    return grid


def score_notes(table: ScoreTable) -> list[str]:
    """Return what the scores took, how well they repeat, and what else should be known."""
    lines = [f"Cost: {_cost(table.cost)}."]
    if table.agreement is not None:
        lines.append(
            f"Agreement: Kendall's τ {table.agreement:.2f} between two halves of the rows. Shapes "
            "and depth alone can make it high; --null tells more."
        )
    return [*lines, *(f"Note: {note}" for note in table.notes)]


def method_table(methods: Sequence[Mapping[str, object]]) -> Table:
    """Return the methods with what they say, need and cost, a line each."""
    found = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for header in ("method", "a site's value", "needs", "costs"):
        found.add_column(header, overflow="fold")
    for method in methods:
        needs = method["needs"]
        shown = ", ".join(map(str, needs)) if isinstance(needs, list) else ""
        name, title, cost = (escape(str(method[key])) for key in ("name", "title", "cost"))
        found.add_row(name, title, shown or "nothing", cost)
    return found


def _lines(sites: Sequence[Site], several: bool) -> dict[str, dict[str, list[Site]]]:
    """Return sites by layer and role; those outside the blocks come last."""
    found: dict[str, dict[str, list[Site]]] = {}
    for site in sorted(sites, key=lambda site: not site.in_block):
        name = f"{site.stack} {site.layer}" if several else f"{site.layer}"
        line = found.setdefault(name if site.in_block else _OUTSIDE, {})
        line.setdefault(str(site.role), []).append(site)
    return found


def _cell(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.3g}" if values else ""


def _cost(cost: ScoringCost) -> str:
    seconds = UNKNOWN if cost.seconds is None else f"{cost.seconds:.1f}"
    memory = UNKNOWN
    if cost.peak_memory_bytes is not None:
        memory = f"{cost.peak_memory_bytes / 2**20:,.0f} MiB"
    return (
        f"{cost.num_forwards:,} rows forward, {cost.num_backwards:,} backward, {seconds} s, peak "
        f"memory {memory} above the model"
    )
