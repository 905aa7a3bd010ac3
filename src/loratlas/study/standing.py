"""Where a run stands: how many trials are done, missing, diverged and failed."""

from collections import Counter
from typing import Any

from loratlas.study.store import Store


def standing(store: Store) -> dict[str, Any]:
    """Return the counts of a run and every trial that ended badly.

    A trial that failed is tried again by the next run; one that diverged would diverge
    again, so it counts as finished. A placement whose every swept rate has a diverged
    trial gets no rate, and the trials of its other seeds fall away.
    """
    trials = list(store.trials().values())
    names = {placement.digest: placement.name for placement in store.placements()}
    counts = Counter(trial.status for trial in trials)
    num_trials = store.meta("num_trials")
    finished = store.meta("finished")
    return {
        "study": store.meta("name"),
        "num_trials": num_trials,
        "done": counts["done"],
        "diverged": counts["diverged"],
        "failed": counts["failed"],
        "missing": 0 if finished or num_trials is None else num_trials - len(trials),
        "probes": len(store.probes()),
        "complete": bool(finished) and not counts["failed"],
        "not_done": [
            {
                "placement": names.get(trial.placement_digest),
                "learning_rate": trial.learning_rate,
                "seed": trial.seed,
                "status": trial.status,
                "error": trial.error,
            }
            for trial in trials
            if trial.status != "done"
        ],
    }
