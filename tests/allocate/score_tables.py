"""Score tables made by hand, for anatomies made by hand."""

import anatomies
from loratlas.allocate.allocate import allocate
from loratlas.allocate.budget import Budget
from loratlas.allocate.constraints import Constraints
from loratlas.allocate.table import ScoreTable, ScoringCost, SiteScore
from loratlas.placement.placement import LoraSpec

# Of width 8: q and o take 16 parameters per rank, k and v 12, gate, up and down 20.
SMALL = anatomies.llama(width=8, layers=2, key_value=4, inner=12)
# Of the shape of Llama-3.1-8B: 224 sites inside the blocks.
LARGE = anatomies.llama(4096, 32, key_value=1024, inner=14336, vocabulary=128_256)
LORA = LoraSpec(rank=4, alpha=8)


def path(part, layer=0):
    block = "self_attn" if part in "qkvo" else "mlp"
    return f"model.layers.{layer}.{block}.{part}_proj"


def table(values, anatomy=SMALL, *, curves=None, groups=None, higher_is_better=True, **fields):
    """Return a table of values by path, or of curves by path, whose values are their sums."""
    curves, groups = curves or {}, groups or {}
    values = values or {name: sum(curve) for name, curve in curves.items()}
    return ScoreTable(
        method="hand",
        unit="1",
        higher_is_better=higher_is_better,
        model=anatomy.model,
        anatomy_digest=anatomy.digest,
        cost=ScoringCost(),
        scores=tuple(
            SiteScore(path=name, value=value, curve=curves.get(name), group=groups.get(name))
            for name, value in values.items()
        ),
        **fields,
    )


def solve(scores, amount, unit="parameters", *, anatomy=SMALL, solver="exact", lora=LORA, **limits):
    tau = limits.pop("tau", None)
    return allocate(
        scores,
        anatomy,
        Budget(amount=amount, unit=unit),
        lora=lora,
        constraints=Constraints(**limits),
        solver=solver,
        tau=tau,
    )


def ranks(allocation):
    """Return the ranks that were given, by path."""
    return {adapter.site.path: adapter.rank for adapter in allocation.placement.adapters}
