"""Which engine trained the trials of a run, and why not the packed one where it did not? No torch.

What a trial comes to is the same by either engine, up to rounding; what differs is the time it
took and whether it stands beside other trials in one pack.
"""

from collections import Counter
from typing import Any

from loratlas.study.standing import asked_trials
from loratlas.study.store import Store

PACKED, REFERENCE = "packed", "reference"


def engines(store: Store) -> dict[str, Any]:
    """Return how many trials each engine trained, keys as the ``results`` command documents them.

    Reasons are those that were kept when the packs were formed, the most frequent first.
    """
    trials = asked_trials(store)
    counts = Counter(trial.engine for trial in trials)
    kept = {
        digest: pack["reason"] for pack in store.meta("packs") or () for digest in pack["trials"]
    }
    reasons = Counter(kept.get(trial.digest) for trial in trials if trial.engine == REFERENCE)
    return {
        PACKED: counts[PACKED],
        REFERENCE: counts[REFERENCE],
        "reasons": [
            {"reason": reason, "num_trials": count}
            for reason, count in reasons.most_common()
            if reason is not None
        ],
    }
