"""What did a finished run of brute force find of each group of sites?"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from loratlas.allocate.agreement import repeatability
from loratlas.allocate.table import ScoreTable, ScoringCost, SiteScore
from loratlas.anatomy.sites import Anatomy, digest_of
from loratlas.errors import TrialError
from loratlas.measure.scores import SplitScore
from loratlas.score.para import rows_read
from loratlas.study.groups import SiteGroup
from loratlas.study.records import BASE, TrialRecord
from loratlas.study.request import as_stored
from loratlas.study.run import VALIDATION
from loratlas.study.scoring_options import UNIT, BruteForceOptions
from loratlas.study.spec import StudySpec
from loratlas.study.store import Store
from loratlas.train.gauge import above_before

EVERYTHING = "everything"
"""The placement of all groups, in a run of *leave_one_out*."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trials:
    """A study that tries groups.

    Attributes:
        study: the study, derived from another.
        groups: the groups.
        placements: name of the placement that shows each, in their order.
        options: how they are tried.
    """

    study: StudySpec
    groups: tuple[SiteGroup, ...]
    placements: tuple[str, ...]
    options: BruteForceOptions


def read_table(store: Store, trials: Trials, anatomy: Anatomy) -> ScoreTable:
    """Return what a finished run says of each group.

    Raises:
        TrialError: no trial of some group ended.
    """
    found = _Found(store, trials)
    gains = [found.gains(name) for name in trials.placements]
    values = [float(np.mean(each[0])) for each in gains]
    halves = np.array([each[1:].mean(axis=1) for each in gains]).T
    repeated = repeatability(halves)
    options = trials.options
    return ScoreTable(
        method=options.method,
        unit=UNIT,
        higher_is_better=True,
        granularity="group",
        model=anatomy.model,
        anatomy_digest=anatomy.digest,
        cost=found.cost(),
        scores=_site_scores(trials.groups, values, [_stderr(each[0]) for each in gains], anatomy),
        agreement=repeated.tau,
        uninformative=() if repeated.uninformative is None else (repeated.uninformative,),
        notes=(*found.notes, *([] if repeated.note is None else [repeated.note])),
        settings={
            "by": options.by,
            "match": options.match,
            "groups": {group.name: len(group.sites) for group in trials.groups},
            "seeds": list(trials.study.seeds),
            "rows": found.num_rows,
            "study_digest": digest_of(as_stored(trials.study)),
        },
    )


class _Found:
    """What the trials of a run gave, by placement and seed."""

    def __init__(self, store: Store, trials: Trials) -> None:
        self._store = store
        self._trials = trials
        self._records = list(store.trials().values())
        self._digests = {record.name: record.digest for record in store.placements()}
        self._chosen: Mapping[str, float | None] = store.meta("chosen") or {}
        self._base = store.scores(BASE)[VALIDATION]
        self.notes: list[str] = []

    @property
    def num_rows(self) -> int:
        """Validation rows."""
        return len(self._base.row)

    def gains(self, name: str) -> NDArray[np.float64]:
        """Return what a placement shows of its group by each seed.

        Returns:
            nats per token over all validation rows, over their first and over their second half,
            shape (3, seeds).
        """
        scores = self._scores(name)
        if self._trials.options.method == "add_one_in":
            without = dict.fromkeys(scores, self._base)
        else:
            without, scores = scores, self._scores(EVERYTHING)
        both = without.keys() & scores.keys()
        if not both:
            raise TrialError(
                f"{self._trials.options.method}: {name} and {EVERYTHING} have no seed in common"
            )
        return np.array([_losses(without[seed]) - _losses(scores[seed]) for seed in sorted(both)]).T

    def cost(self) -> ScoringCost:
        """Return what all trials took, those of every rate; the seconds are those of training."""
        study = self._trials.study
        num_train = int((self._store.meta("rows") or {})["train"])
        num_trained = len(self._records) * rows_read(study.training, num_train)
        splits = [self._store.scores(each) for each in (BASE, *(r.digest for r in self._records))]
        num_scored = sum(len(split.row) for scores in splits for split in scores.values())
        return ScoringCost(
            num_forwards=num_trained + num_scored,
            num_backwards=num_trained,
            seconds=math.fsum(_seconds(self._records)),
            peak_memory_bytes=max(_peaks(self._records), default=None),
        )

    def _scores(self, name: str) -> dict[int, SplitScore]:
        """Return the validation scores of the trials at the chosen rate that ended, by seed."""
        own = [
            record
            for record in self._records
            if record.placement_digest == self._digests[name]
            and record.learning_rate == self._chosen.get(name)
        ]
        ended = [record for record in own if record.status == "done"]
        if not ended:
            errors = sorted({record.error for record in self._records if record.error})
            raise TrialError(
                f"{self._trials.options.method}: no trial of {name} ended"
                f"{': ' * bool(errors)}{'; '.join(errors[:2])}"
            )
        note = f"{name}: {len(own) - len(ended)} of {len(own)} trials diverged or failed"
        if len(ended) < len(own) and note not in self.notes:
            self.notes.append(note)
        return {record.seed: self._store.scores(record.digest)[VALIDATION] for record in ended}


def _losses(score: SplitScore) -> NDArray[np.float64]:
    """Return the loss over all rows and over each half of them, shape (3,)."""
    middle = len(score.row) // 2
    parts = [slice(None), slice(None, middle), slice(middle, None)]
    return np.array(
        [score.nll[part].sum() / max(1, score.num_tokens[part].sum()) for part in parts]
    )


def _stderr(values: NDArray[np.float64]) -> float | None:
    """Return the standard error of a mean over seeds, None of one seed."""
    return float(stats.sem(values)) if len(values) > 1 else None


def _site_scores(
    groups: Sequence[SiteGroup],
    values: Sequence[float],
    errors: Sequence[float | None],
    anatomy: Anatomy,
) -> tuple[SiteScore, ...]:
    """Return the value of its group for every site, in the order of the model."""
    found = {
        site.path: SiteScore(path=site.path, value=value, stderr=stderr, group=group.name)
        for group, value, stderr in zip(groups, values, errors, strict=True)
        for site in group.sites
    }
    return tuple(found[path] for path in anatomy.by_path if path in found)


def _seconds(records: Sequence[TrialRecord]) -> Iterator[float]:
    """Yield the seconds of training of each pack, and of each trial that was in none."""
    packs = {record.pack["number"]: record.pack.get("seconds") for record in records if record.pack}
    alone = [record.seconds for record in records if record.pack is None]
    yield from (seconds for seconds in (*packs.values(), *alone) if seconds is not None)


def _peaks(records: Sequence[TrialRecord]) -> Iterator[int]:
    for record in records:
        memory = (record.pack or {}).get("memory") or record.memory
        peak = above_before(memory["train"]) if "train" in memory else None
        if peak is not None:
            yield peak
