"""How many adapter parameters do the trials of a placement hold, and where?

A placement that stands still holds what it was resolved to. One that moves holds what its trials
ended with, which may differ by seed, and not what its budget would allow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from loratlas.analysis.moved import is_moving
from loratlas.anatomy.sites import Anatomy
from loratlas.placement.placement import Placement
from loratlas.study.records import PlacementRecord, TrialRecord
from loratlas.study.resolve import families
from loratlas.study.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """What the trials of a placement hold in the end.

    Attributes:
        num_sites: sites with an adapter; where they moved, in one trial at least.
        ranks: the ranks that occur, ascending.
        parameters: adapter parameters, exact; where trials differ their mean, in whole parameters.
        families: the same by family of roles; they add up to `parameters`.
        extremes: fewest and most adapter parameters of a trial; None where nothing moved, and
            where no trial has ended.
    """

    num_sites: int
    ranks: tuple[int, ...]
    parameters: int
    families: Mapping[str, int]
    extremes: tuple[int, int] | None = None


def held_by(store: Store, trials: Mapping[str, Sequence[TrialRecord]]) -> dict[str, Held]:
    """Return what each placement of a run holds, by name in the order of the study.

    Args:
        store: of the run.
        trials: those that figures rest on, by the name of their placement.
    """
    records = store.placements()
    kept = store.meta("anatomy") if any(map(is_moving, records)) else None
    anatomy = None if kept is None else Anatomy.from_json(kept)
    return {record.name: held(record, trials[record.name], anatomy) for record in records}


def held(record: PlacementRecord, trials: Sequence[TrialRecord], anatomy: Anatomy | None) -> Held:
    """Return what the trials of a placement hold.

    Args:
        record: the placement.
        trials: its trials; those count that came to their end.
        anatomy: the sites of the model, which a placement that moved takes to be counted.
    """
    ends = [{"placement": each.final} for each in trials if each.status == "done" and each.final]
    if not is_moving(record) or not ends or anatomy is None:
        return _as_resolved(record)
    return _ended(record, [Placement.from_json(each, anatomy) for each in ends])


def _as_resolved(record: PlacementRecord) -> Held:
    return Held(
        num_sites=len(record.adapters),
        ranks=tuple(sorted({adapter["rank"] for adapter in record.adapters})),
        parameters=(record.learned or {}).get("start_parameters", record.trainable_parameters),
        families=record.families,
    )


def _ended(record: PlacementRecord, ends: Sequence[Placement]) -> Held:
    adapters = [adapter for end in ends for adapter in end.adapters]
    counts = [families(end) for end in ends]
    means = {name: round(fmean(each.get(name, 0) for each in counts)) for name in record.families}
    totals = [end.trainable_parameters for end in ends]
    return Held(
        num_sites=len({adapter.site.path for adapter in adapters}),
        ranks=tuple(sorted({adapter.rank for adapter in adapters})),
        parameters=sum(means.values()),
        families=means,
        extremes=(min(totals), max(totals)),
    )
