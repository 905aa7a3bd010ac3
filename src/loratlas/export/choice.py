"""Which trial of a run does a person mean? A placement, PLACEMENT:SEED, or a digest's beginning."""

from collections.abc import Sequence

from loratlas.analysis.arms import trials_at_chosen_rate
from loratlas.errors import ExportError, did_you_mean
from loratlas.study.records import PlacementRecord, TrialRecord
from loratlas.study.store import Store

_SHORTEST_DIGEST = 6
_HEX = frozenset("0123456789abcdef")
_MOST_SHOWN = 8

Choice = tuple[PlacementRecord, TrialRecord]


def choose(store: Store, wanted: str) -> Choice:
    """Return the trial that is meant, with its placement.

    A placement means its trial at the chosen learning rate, which has to be the only one;
    PLACEMENT:SEED says which seed; a digest, or its first characters, can name any trial.

    Raises:
        ExportError: no trial or several are meant, or the one that is meant did not end well.
    """
    placements = {placement.name: placement for placement in store.placements()}
    # Names of placements are free, so that one may look like PLACEMENT:SEED.
    if wanted in placements:
        return _only(store, placements[wanted])
    name, _, seed = wanted.rpartition(":")
    if name in placements:
        return _of_seed(store, placements[name], seed)
    return _of_digest(store, wanted, list(placements.values()))


def require_done(placement: PlacementRecord, trial: TrialRecord) -> None:
    """Refuse a trial that did not end well.

    Raises:
        ExportError: it diverged or failed, or has no saved adapter.
    """
    which = f"{placement.name}, seed {trial.seed}, rate {trial.learning_rate:g}"
    if trial.status != "done":
        told = f": {trial.error}" if trial.error else ""
        raise ExportError(
            f"{which}: this trial {trial.status}{told}; only a trial that is done can be exported"
        )
    if trial.adapter is None:
        raise ExportError(f"{which}: the run holds no adapter of this trial")


def _only(store: Store, placement: PlacementRecord) -> Choice:
    trials = trials_at_chosen_rate(store)[placement.name]
    done = [trial for trial in trials if trial.status == "done"]
    if len(done) == 1:
        return placement, done[0]
    if done:
        choices = ", ".join(_named(placement, trial, trials) for trial in done)
        raise ExportError(f"{placement.name} has {len(done)} trials; say which: {choices}")
    if trials:
        require_done(placement, trials[0])
    raise ExportError(f"{placement.name}: no trial of it has ended yet")


def _of_seed(store: Store, placement: PlacementRecord, seed: str) -> Choice:
    trials = trials_at_chosen_rate(store)[placement.name]
    found = [trial for trial in trials if str(trial.seed) == seed]
    if len(found) == 1:
        require_done(placement, found[0])
        return placement, found[0]
    choices = ", ".join(_named(placement, trial, trials) for trial in found or trials)
    if found:
        said = f"{len(found)} trials of seed {seed}; say which: {choices}"
    else:
        there = f"there is: {choices}" if choices else "no trial of it has ended yet"
        said = f"no trial of seed {seed}; {there}"
    raise ExportError(f"{placement.name} has {said}")


def _of_digest(store: Store, wanted: str, placements: Sequence[PlacementRecord]) -> Choice:
    trials = store.trials()
    found = [each for digest, each in trials.items() if digest.startswith(wanted.lower())]
    if len(wanted) < _SHORTEST_DIGEST or not set(wanted.lower()) <= _HEX or not found:
        raise ExportError(_unknown(wanted, placements))
    if len(found) > 1:
        digests = ", ".join(each.digest[:12] for each in found[:_MOST_SHOWN])
        raise ExportError(f"{wanted}: {len(found)} trials have this digest; say more: {digests}")
    trial = found[0]
    own = [each for each in placements if each.digest == trial.placement_digest]
    if not own:
        raise ExportError(f"{wanted}: this trial is of a placement that the study no longer has")
    require_done(own[0], trial)
    return own[0], trial


def _named(placement: PlacementRecord, trial: TrialRecord, among: Sequence[TrialRecord]) -> str:
    """Return the shortest text that means a trial."""
    alone = sum(each.seed == trial.seed for each in among) == 1
    return f"{placement.name}:{trial.seed}" if alone else trial.digest[:12]


def _unknown(wanted: str, placements: Sequence[PlacementRecord]) -> str:
    names = [placement.name for placement in placements]
    near = did_you_mean(wanted.rpartition(":")[0] or wanted, names)
    return (
        f"{wanted}: no placement or trial of this run has this name{near}; it takes PLACEMENT, "
        f"PLACEMENT:SEED, or {_SHORTEST_DIGEST} or more characters of a trial's digest; "
        f"the placements are {', '.join(names[:_MOST_SHOWN])}"
    )
