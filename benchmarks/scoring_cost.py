"""What does scoring a study take, and what would training on the same rows take?"""

import math
import statistics
from dataclasses import replace

from loratlas.allocate.table import ScoreTable
from loratlas.errors import TrialError
from loratlas.placement.placement import place
from loratlas.score.backward import rows_of_a_pass
from loratlas.score.methods import scorer, scorers
from loratlas.score.scorer import Subject
from loratlas.study.progress import Silent
from loratlas.study.score_study import load_subject
from loratlas.study.scoring import score_by
from loratlas.study.scoring_options import ScoringOptions
from loratlas.study.spec import StudySpec
from loratlas.train.packed.fit import fit_pack
from loratlas.train.packed.opening import open_base
from loratlas.train.packed.passes import Passes
from loratlas.train.packed.slots import Slot
from loratlas.train.prefix import PrefixCache

REPEATS = 5
"""Timed scorings by a method that trains nothing; the median counts."""


def methods() -> list[str]:
    """Return the scorers that read rows; the others are among the trivial predictors."""
    return [method.name for method in scorers() if method.needs.rows]


def timed(study: StudySpec, method: str, repeats: int) -> ScoreTable:
    """Score by a method, once to warm up and several times more; return the median of the seconds.

    A method that trains is neither warmed up nor repeated.
    """
    subject, options = subject_for(study, method), ScoringOptions(method=method)
    once = scorer(method).needs.training or repeats == 1
    found = [score_by(options, subject) for _ in range(1 if once else repeats + 1)]
    kept = found if once else found[1:]
    seconds = statistics.median(each.cost.seconds or 0.0 for each in kept)
    # The first run is the one whose memory nothing has warmed up.
    return replace(kept[0], cost=replace(found[0].cost, seconds=seconds))


def training_seconds(subject: Subject, repeats: int) -> float:
    """Return the seconds of training adapters at every site on the rows of a subject, once.

    By the packed engine alone: one trial, steps of one pass each, of as many rows as a gradient
    scorer sends through at once; no hidden state is kept. Opening the base is left out, as loading
    it is for scorers.

    Raises:
        TrialError: the engine does not serve this base, or the training diverged.
    """
    base, anatomy, lora = subject.base, subject.anatomy, subject.lora
    packed = open_base(base, anatomy, subject.rows, subject.masking)
    if isinstance(packed, str):
        raise TrialError(f"there is no packed training to compare with: {packed}")
    placement = place(anatomy, "all", rank=lora.rank, alpha=lora.alpha, scaling=lora.scaling)
    batch = rows_of_a_pass(subject)
    steps = math.ceil(len(subject.rows) / batch)
    training = replace(subject.training, steps=steps, batch=batch, accumulation=1, warmup=0.0)
    rate = min(subject.training.learning_rate)
    seconds = []
    for _ in range(repeats + 1):
        slot = Slot.new(placement, seed=subject.seed, dropout=0.0, device=base.device)
        prefix = PrefixCache(base_digest=base.digest, dtype=base.model.dtype, memory_limit=0)
        passes = Passes(batch * max(row.num_read for row in subject.rows))
        with packed.opened([slot], prefix) as flow:
            (fit,) = fit_pack(
                flow,
                subject.rows,
                training,
                learning_rates=[rate],
                passes=passes,
                masking=subject.masking,
            )
        prefix.close()
        if isinstance(fit, TrialError):
            raise fit
        seconds.append(sum(fit.step_seconds))
    return statistics.median(seconds[1:])


def subject_for(study: StudySpec, method: str) -> Subject:
    """Load the base of a study with the rows that a method reads of it, as ``loratlas score``."""
    return load_subject(study, ScoringOptions(method=method), Silent())
