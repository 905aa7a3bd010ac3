"""Which trials train together, and by which engine?

Packs are formed from the study and kept before any of their trials runs. A run that goes on takes
the packs that were kept: what is left of a study never decides what trains with what.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from loratlas.study.room import Room
from loratlas.study.store import Store
from loratlas.train.packed.fit import ENGINE as PACKED
from loratlas.train.reference import ENGINE as REFERENCE

_KEY = "packs"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pack:
    """Trials that train together.

    Attributes:
        number: place among the packs of the run, from 1.
        engine: which engine trains them.
        trials: their digests, in order; one where the engine is the reference.
        tokens_per_pass: most tokens that go through the base at once; None in the reference.
        reason: why the packed engine does not train them, None where it does.
    """

    number: int
    engine: str
    trials: tuple[str, ...]
    tokens_per_pass: int | None = None
    reason: str | None = None


def packs_of(
    store: Store, wanted: Sequence[str], reasons: Mapping[str, str | None], room: Room
) -> list[Pack]:
    """Return the packs that hold the wanted trials; those not yet in one are packed and kept.

    Args:
        store: of the run.
        wanted: digests of trials, in the order of the study.
        reasons: why each cannot be packed, None where it can.
        room: how many go together.
    """
    kept = [_read(pack) for pack in store.meta(_KEY) or ()]
    known = {trial for pack in kept for trial in pack.trials}
    new = [trial for trial in wanted if trial not in known]
    if new:
        kept += _formed(new, reasons, room, len(kept))
        store.set_meta(_KEY, [asdict(pack) for pack in kept])
    return [pack for pack in kept if set(pack.trials) & set(wanted)]


def _formed(
    trials: Sequence[str], reasons: Mapping[str, str | None], room: Room, num_before: int
) -> list[Pack]:
    """Return packs of equal size, as far as that goes, then a pack for each other trial."""
    packable = [trial for trial in trials if reasons[trial] is None]
    apart = [trial for trial in trials if reasons[trial] is not None]
    groups = _even(packable, room.trials)
    packs = [
        Pack(
            number=num_before + place,
            engine=PACKED,
            trials=group,
            tokens_per_pass=room.tokens_per_pass,
        )
        for place, group in enumerate(groups, start=1)
    ]
    return packs + [
        Pack(
            number=num_before + len(packs) + place,
            engine=REFERENCE,
            trials=(trial,),
            reason=reasons[trial],
        )
        for place, trial in enumerate(apart, start=1)
    ]


def _even(trials: Sequence[str], most: int) -> list[tuple[str, ...]]:
    """Return consecutive groups of at most `most`, as few as possible, sizes at most one apart."""
    num_groups = -(-len(trials) // most)
    sizes = [(len(trials) + place) // num_groups for place in range(num_groups)]
    starts = [sum(sizes[:place]) for place in range(num_groups)]
    return [tuple(trials[a : a + size]) for a, size in zip(starts, sizes, strict=True)]


def _read(kept: Mapping[str, object]) -> Pack:
    fields = {**kept, "trials": tuple(kept["trials"])}  # type: ignore[arg-type]
    return Pack(**fields)  # type: ignore[arg-type]
