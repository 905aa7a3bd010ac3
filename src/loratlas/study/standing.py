"""Where a run stands: how many trials are done, missing, diverged and failed."""

from collections import Counter
from typing import Any

from loratlas.study.records import TrialRecord
from loratlas.study.store import Store


def asked_trials(store: Store) -> list[TrialRecord]:
    """Return the trials that ran and that the study asks for.

    A rate that was chosen once and is no longer leaves trials that nobody asks for now.
    """
    wanted, known = store.meta("wanted"), store.trials()
    return list(known.values()) if wanted is None else [known[d] for d in wanted if d in known]


def standing(store: Store) -> dict[str, Any]:
    """Return the counts of a run and every trial that ended badly.

    A trial that failed is tried again by the next run; one that diverged would diverge
    again, so it counts as finished. A placement whose every swept rate has a diverged
    trial gets no rate, and the trials of its other seeds fall away.
    """
    wanted = store.meta("wanted")
    trials = asked_trials(store)
    names = {placement.digest: placement.name for placement in store.placements()}
    counts = Counter(trial.status for trial in trials)
    finished = store.meta("finished")
    num_trials = store.meta("num_trials")
    if wanted is not None and store.meta("rates_chosen"):
        num_trials = len(wanted)
    return {
        "study": store.meta("name"),
        "num_trials": num_trials,
        "done": counts["done"],
        "diverged": counts["diverged"],
        "failed": counts["failed"],
        "missing": None if num_trials is None else num_trials - len(trials),
        "probes": len(store.probes()),
        "complete": bool(finished) and not counts["failed"],
        "not_done": [
            {
                "placement": names.get(trial.placement_digest),
                "learning_rate": trial.learning_rate,
                "seed": trial.seed,
                "engine": trial.engine,
                "status": trial.status,
                "error": trial.error,
            }
            for trial in trials
            if trial.status != "done"
        ],
    }
