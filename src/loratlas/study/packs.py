"""Which trials train together, and by which engine?

Packs are formed from the study and kept before any of their trials runs. A run that goes on takes
the packs that were kept: what is left of a study never decides what trains with what.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

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

    A trial that has not ended leaves a pack that a person wants otherwise now: where the study asks
    for another engine than before, and where the pack has more trials than is allowed.

    Args:
        store: of the run.
        wanted: digests of trials, in the order of the study.
        reasons: why each cannot be packed, None where it can.
        room: how many go together.
    """
    ended = {digest for digest, trial in store.trials().items() if trial.status != "failed"}
    before = [_read(pack) for pack in store.meta(_KEY) or ()]
    kept = [rest for pack in before if (rest := _as_wanted(pack, reasons, ended, room)).trials]
    known = {trial for pack in kept for trial in pack.trials}
    new = [trial for trial in wanted if trial not in known]
    if new:
        kept += _formed(new, reasons, room, max((pack.number for pack in before), default=0))
        store.set_meta(_KEY, [asdict(pack) for pack in kept])
    return [pack for pack in kept if set(pack.trials) & set(wanted)]


def _as_wanted(
    pack: Pack, reasons: Mapping[str, str | None], ended: Container[str], room: Room
) -> Pack:
    """Return a pack without the trials that are to be packed otherwise."""
    is_packed = pack.engine == PACKED
    too_large = room.most is not None and len(pack.trials) > room.most
    stays = [
        trial
        for trial in pack.trials
        if trial in ended
        or trial not in reasons
        or (not too_large and (reasons[trial] is None) == is_packed)
    ]
    return replace(pack, trials=tuple(stays))


def _formed(
    trials: Sequence[str], reasons: Mapping[str, str | None], room: Room, last: int
) -> list[Pack]:
    """Return packs of equal size, as far as that goes, then a pack for each other trial.

    Args:
        trials: what is packed.
        reasons: why each cannot be, None where it can.
        room: how many go together.
        last: number of the last pack before these.
    """
    packable = [trial for trial in trials if reasons[trial] is None]
    apart = [trial for trial in trials if reasons[trial] is not None]
    together = [
        Pack(number=number, engine=PACKED, trials=group, tokens_per_pass=room.tokens_per_pass)
        for number, group in enumerate(_even(packable, room.trials), start=last + 1)
    ]
    return together + [
        Pack(number=number, engine=REFERENCE, trials=(trial,), reason=reasons[trial])
        for number, trial in enumerate(apart, start=last + len(together) + 1)
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
