"""Tables 1 to 4 of the founding study, from any run, each figure under a name that says what it is.

The study compared three placements of LoRA on DialoGPT-medium. Its tables are kept in their form,
and its faults are not: perplexity is exp of the corpus loss (there it was up to 195 times that),
memory is measured (there it was 0), and parameters are told by what their sites do, not by their
names (there ``c_proj`` counted as attention; half of those sites are feed-forward).
"""

import math
from collections.abc import Mapping, Set
from typing import Any

from loratlas.analysis.columns import Column, Row, divided, table, times
from loratlas.analysis.quality import finite
from loratlas.anatomy.sites import Family
from loratlas.measure.scores import perplexity

ATTENTION = frozenset({Family.ATTENTION, Family.CROSS_ATTENTION})
FEED_FORWARD = frozenset({Family.FEED_FORWARD, Family.EXPERT, Family.SHARED_EXPERT})


def founding_tables(
    results: Mapping[str, Any], *, baseline: str | None, base_parameters: int | None
) -> dict[str, Any]:
    """Return the four tables: ``{"tables": [{"title", "columns", "rows"}]}``.

    Args:
        results: what `loratlas.analysis.summary.results` returns.
        baseline: name of the placement that others are compared with, None where not known.
        base_parameters: parameters of the base, None where not known.
    """
    arms = results["placements"]
    against = arms.get(baseline)
    rows = [_row(name, found, against, base_parameters) for name, found in arms.items()]
    return {
        "tables": [
            table("Table 1: performance and efficiency", _PERFORMANCE, rows),
            table("Table 2: training efficiency", _TRAINING, rows),
            table("Table 3: loss and perplexity", _PERPLEXITY, rows),
            table("Table 4: adapter parameters by component", _components(rows), rows),
        ]
    }


def _row(name: str, found: Row, against: Row | None, base_parameters: int | None) -> dict[str, Any]:
    """Return every figure of a placement that some table shows."""
    count, seconds = found["trainable_parameters"], found["seconds"]
    above, share_above = _above(found, against)
    saved = found["percent_saved_against_baseline"]
    loss = found["loss"]
    # A classifier's loss has no perplexity to expect.
    expected = None if found["perplexity"] is None else finite(perplexity(loss))
    return {
        "placement": name,
        "loss": loss,
        "above": above,
        "above_percent": share_above,
        "perplexity": found["perplexity"],
        "expected": expected,
        "deviation": divided(found["perplexity"], expected),
        "parameters": count,
        "saved_against_full": found["percent_saved_against_full_fine_tuning"],
        "saved_against_baseline": saved,
        "ratio": divided(share_above, saved) if saved is not None and saved > 0 else None,
        "seconds": seconds,
        "time_saved": _saved(found, against, "seconds"),
        "per_second": divided(count, seconds),
        "speed_up": None if against is None else divided(against["seconds"], seconds),
        "memory": found["peak_memory_bytes"],
        "memory_saved": _saved(found, against, "peak_memory_bytes"),
        "total": None if base_parameters is None else base_parameters + count,
        **_by_component(found["families"], count),
    }


def _above(found: Row, against: Row | None) -> tuple[float | None, float | None]:
    """Return how far a loss lies above the baseline's, in nats and percent, paired by seed."""
    losses, others = found["losses"], {} if against is None else against["losses"]
    seeds = [seed for seed in losses if seed in others]
    if not seeds:
        return None, None
    base = math.fsum(others[seed] for seed in seeds) / len(seeds)
    above = math.fsum(losses[seed] - others[seed] for seed in seeds) / len(seeds)
    return finite(above), times(divided(finite(above), base), 100)


def _saved(found: Row, against: Row | None, key: str) -> float | None:
    """Return by how many percent a figure is below the baseline's."""
    share = None if against is None else divided(found[key], against[key])
    return None if share is None else 100 * (1 - share)


def _by_component(families: Mapping[str, int], count: int) -> dict[str, Any]:
    attention, feed_forward = _among(families, ATTENTION), _among(families, FEED_FORWARD)
    parts = {
        "attention": attention,
        "feed_forward": feed_forward,
        "other": count - attention - feed_forward,
    }
    shares = {f"{name}_share": times(divided(n, count), 100) for name, n in parts.items()}
    return parts | shares


def _among(families: Mapping[str, int], wanted: Set[Family]) -> int:
    return sum(count for family, count in families.items() if Family(family) in wanted)


def _components(rows: list[dict[str, Any]]) -> list[Column]:
    """Return the columns of table 4: a share of other sites takes the place of the sum."""
    has_other = any(row["other"] for row in rows)
    return [*_PARTS, _OTHER if has_other else _ALL, _TOTAL]


def _column(key: str, name: str, unit: str, meaning: str) -> Column:
    return Column(name=name, unit=unit, meaning=meaning, of=lambda row: row[key])


_PLACEMENT = _column("placement", "placement", "text", "its name in the study")
_LOSS = _column(
    "loss", "loss", "nats", "nats per scored token of the test rows, mean over seeds at the rate "
    "that validation chose",
)  # fmt: skip
_TIME = _column(
    "seconds", "training time", "seconds", "steps of a trial times the median step of a probe that "
    "trains the placement alone",
)  # fmt: skip
_SCORED = _column(
    "perplexity", "perplexity", "number", "exp of the loss, which is that of the whole corpus"
)
_PERFORMANCE = [
    _PLACEMENT,
    _LOSS,
    _column(
        "above_percent", "loss above baseline", "percent",
        "100 · (loss - baseline's loss) / baseline's loss, over the seeds that both have",
    ),
    _column("parameters", "trainable parameters", "count", "adapter parameters, exact"),
    _column(
        "saved_against_full", "fewer than full tuning", "percent",
        "100 · base / (base + adapters): the share of a full fine-tuning that is not trained",
    ),
    _TIME,
    _column(
        "time_saved", "less time than baseline", "percent", "100 · (1 - time / baseline's time)"
    ),
]  # fmt: skip
_TRAINING = [
    _PLACEMENT,
    _column(
        "speed_up", "speed-up over baseline", "factor", "baseline's time / time: above 1 is faster"
    ),
    _column(
        "per_second", "trainable parameters per second", "count_rate",
        "trainable parameters / training time: a count over a time, and no throughput; fewer "
        "parameters make it smaller however fast the training is",
    ),
    _column(
        "memory", "peak memory above model", "bytes",
        "most memory of a training step above the loaded model, measured by that probe",
    ),
    _column(
        "memory_saved", "less memory than baseline", "percent",
        "100 · (1 - that memory / the baseline's)",
    ),
    _column(
        "saved_against_baseline", "fewer parameters than baseline", "percent",
        "100 · (1 - parameters / baseline's parameters)",
    ),
    _column(
        "ratio", "loss % per % saved", "ratio",
        "loss above baseline in percent / parameters fewer than baseline in percent (the founding "
        "study's efficiency ratio): lower is better; not known where no parameter is saved",
    ),
]  # fmt: skip
_PERPLEXITY = [
    _PLACEMENT,
    _LOSS,
    _column(
        "above", "loss above baseline, nats", "nats",
        "mean over the seeds that both have of loss - baseline's loss",
    ),
    _SCORED,
    _column("expected", "expected perplexity", "number", "exp(loss)"),
    _column(
        "deviation", "deviation (1 by construction)", "factor",
        "perplexity / expected perplexity: 1 by construction, since perplexity is computed from "
        "this very loss; anything else would be two definitions under one name",
    ),
]  # fmt: skip
_PARTS = [
    _PLACEMENT,
    _column(
        "attention", "attention", "count",
        "adapter parameters on sites of attention, by role and not by name",
    ),
    _column("attention_share", "attention share", "percent", "of the placement's parameters"),
    _column(
        "feed_forward", "feed-forward", "count",
        "adapter parameters on feed-forward sites, experts among them, by role and not by name",
    ),
    _column("feed_forward_share", "feed-forward share", "percent", "of the placement's parameters"),
]  # fmt: skip
_OTHER = _column(
    "other_share", "other share", "percent", "of the placement's parameters, on all other sites"
)
_ALL = _column("parameters", "all adapters", "count", "adapter parameters, exact")
_TOTAL = _column("total", "base and adapters", "count", "parameters of the base and the adapters")
