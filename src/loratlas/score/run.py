"""How is a subject scored by a method, and which of the figures may leave?

Whatever can be refused is refused before anything is computed. Of what comes out nothing is NaN or
infinite, the cost stands beside it, and where the scores are uninformative, so does the reason.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from loratlas.allocate.agreement import (
    NUM_NULLS,
    NullCheck,
    Repeatability,
    against_nulls,
    note_of,
    repeatability,
)
from loratlas.allocate.table import ScoreTable, ScoringCost, SiteScore
from loratlas.errors import RequestError, TrialError
from loratlas.score.nulls import Null, null_subjects, why_no_null
from loratlas.score.scorer import Found, Scorer, Subject
from loratlas.train.gauge import Gauge, above_before

_FEWEST_ROWS = 2
_NULLS = {
    "labels": "rows whose targets were exchanged among all rows",
    "weights": "untrained models of this configuration",
}


def score(scorer: Scorer, subject: Subject, nulls: Sequence[Null] = ()) -> ScoreTable:
    """Score the sites of a subject by a method.

    Args:
        scorer: the method.
        subject: what is scored.
        nulls: what the scores are held against; each costs `NUM_NULLS` further scorings, which the
            table's cost leaves out and its note names.

    Raises:
        RequestError: the method cannot score this, or cannot be held against a null.
        TrialError: a loss or a value is no number.
    """
    require_scorable(scorer, subject, nulls)
    measured = _measure(scorer, subject)
    table = _table(scorer, subject, measured)
    held = [_held_against(null, scorer, subject, measured.found) for null in nulls]
    return replace(
        table,
        uninformative=(*table.uninformative, *(each.reason for each in held if each.reason)),
        notes=(*table.notes, *(each.note for each in held)),
    )


def require_scorable(scorer: Scorer, subject: Subject, nulls: Sequence[Null] = ()) -> None:
    """Refuse what a method cannot score; nothing is computed.

    Raises:
        RequestError: it cannot.
    """
    name = subject.anatomy.model
    if not subject.sites:
        raise RequestError(f"{name}: there is no site to score")
    if scorer.needs.rows and len(subject.rows) < _FEWEST_ROWS:
        raise RequestError(
            f"{scorer.name}: {len(subject.rows)} training rows; at least {_FEWEST_ROWS} are "
            "needed, so that halves of them can be compared"
        )
    if (why := scorer.why_not(subject)) is not None:
        raise RequestError(f"{name}: {scorer.name} cannot score it: {why}")
    require_comparable(scorer, nulls)


def require_comparable(scorer: Scorer, nulls: Sequence[Null]) -> None:
    """Refuse nulls that a method cannot be held against.

    Raises:
        RequestError: it cannot.
    """
    for null in nulls:
        if (why := why_no_null(null, scorer)) is not None:
            raise RequestError(f"{scorer.name} cannot be held against the null {null}: {why}")


class _Doubt(NamedTuple):
    """What a person should know, and why the scores say nothing, if they do not."""

    note: str
    reason: str | None


class _Measured(NamedTuple):
    """What a method found, and what that took."""

    found: Found
    cost: ScoringCost


def _measure(scorer: Scorer, subject: Subject) -> _Measured:
    gauge = Gauge(subject.base.device)
    began = time.perf_counter()
    with gauge.phase("score"):
        found = scorer.measure(subject)
    seconds = time.perf_counter() - began
    _require_numbers(scorer, subject, found)
    cost = ScoringCost(
        num_forwards=found.num_forwards,
        num_backwards=found.num_backwards,
        seconds=seconds,
        peak_memory_bytes=above_before(gauge.phases["score"]),
    )
    return _Measured(found, cost)


def _require_numbers(scorer: Scorer, subject: Subject, found: Found) -> None:
    """Refuse scores that are no numbers: an allocator could only guess at them."""
    paths = [site.path for site in subject.sites]
    assert found.values.shape == (len(paths),), f"{scorer.name}: one value for each site"
    bad = ~np.isfinite(found.values)
    if found.halves is not None:
        assert found.halves.shape == (2, len(paths)), f"{scorer.name}: two halves of all sites"
        bad |= ~np.isfinite(found.halves).all(axis=0)
    if found.stderr is not None:
        bad |= np.isinf(found.stderr)
    for number, curve in enumerate(found.curves or ()):
        bad[number] |= curve is not None and not np.isfinite(curve).all()
    for number, parts in enumerate(found.slices or ()):
        bad[number] |= not all(map(math.isfinite, (parts or {}).values()))
    if bad.any():
        first = paths[int(np.flatnonzero(bad)[0])]
        raise TrialError(
            f"{scorer.name}: the scores of {int(bad.sum())} of {len(paths)} sites are no numbers, "
            f"first {first}"
        )


def _table(scorer: Scorer, subject: Subject, measured: _Measured) -> ScoreTable:
    found = measured.found
    repeated = None if found.halves is None else repeatability(found.halves)
    doubt = _doubt(found.values, repeated)
    return ScoreTable(
        method=scorer.name,
        unit=scorer.unit,
        higher_is_better=scorer.higher_is_better,
        granularity=scorer.granularity,
        model=subject.anatomy.model,
        anatomy_digest=subject.anatomy.digest,
        cost=measured.cost,
        scores=tuple(_site_score(number, subject, found) for number in range(len(subject.sites))),
        agreement=None if repeated is None else repeated.tau,
        uninformative=(doubt.reason,) if doubt and doubt.reason else (),
        notes=(*found.notes, *([doubt.note] if doubt else [])),
        settings={
            "rows": len(subject.rows) if scorer.needs.rows else 0,
            "batch": subject.batch,
            "seed": subject.seed,
            "max_rank": subject.max_rank,
            "lora": asdict(subject.lora),
            "base_digest": subject.base.digest,
            # The anatomy of a model with a classification head is read with their number.
            "num_labels": subject.base.ref.num_labels,
        },
    )


def _site_score(number: int, subject: Subject, found: Found) -> SiteScore:
    stderr = None if found.stderr is None else float(found.stderr[number])
    curve = None if found.curves is None else found.curves[number]
    counts = None if found.expert_tokens is None else found.expert_tokens[number]
    return SiteScore(
        path=subject.sites[number].path,
        value=float(found.values[number]),
        stderr=None if stderr is None or math.isnan(stderr) else stderr,
        curve=None if curve is None else tuple(curve.tolist()),
        num_tokens=None if found.num_tokens is None else int(found.num_tokens[number]),
        expert_tokens=None if counts is None else tuple(counts),
        slices=None if found.slices is None else found.slices[number],
    )


def _doubt(values: NDArray[np.float64], repeated: Repeatability | None) -> _Doubt | None:
    """Return what is to be doubted of scores, as far as they show it by themselves."""
    if len(values) > 1 and np.ptp(values) == 0:
        reason = "every site has the same value"
        return _Doubt(note_of(reason), reason)
    if repeated is None or len(values) == 1 or repeated.note is None:
        return None
    return _Doubt(repeated.note, repeated.uninformative)


def _held_against(null: Null, scorer: Scorer, subject: Subject, found: Found) -> _Doubt:
    """Score draws of a null; return how the scores stand beside them."""
    draws = [_measure(scorer, other) for other in null_subjects(null, subject, NUM_NULLS)]
    check = against_nulls(found.values, np.stack([draw.found.values for draw in draws]))
    seconds = math.fsum(draw.cost.seconds or 0.0 for draw in draws)
    differ = _difference(check)
    reason = None if check.informative else f"{_NULLS[null]} give about the same: {differ}"
    said = f"against {_NULLS[null]}: {differ}" if reason is None else note_of(reason)
    return _Doubt(f"{said} The check took {seconds:.1f} s.", reason)


def _difference(check: NullCheck) -> str:
    return (
        f"the sites' values, relative to one another, differ by a factor of "
        f"{math.exp(check.distance):.2f} from the nearest of {NUM_NULLS} draws, and draws by up to "
        f"{math.exp(check.spread):.2f}{_taus(check)}."
    )


def _taus(check: NullCheck) -> str:
    if check.agreement is None or check.among is None:
        return ""
    return f" (Kendall's τ {check.agreement:.2f} with them, {check.among:.2f} among them)"
