"""How does a study become something that can be scored?

Scorers see training rows and nothing else: validation chooses, and test answers.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from loratlas.allocate.table import ScoreTable
from loratlas.anatomy.sites import Anatomy, Site
from loratlas.data.batches import PreparedData
from loratlas.errors import PlacementError, StudyError
from loratlas.placement.placement import place
from loratlas.score.methods import scorer
from loratlas.score.nulls import Null
from loratlas.score.run import score
from loratlas.score.scorer import Scorer, Subject
from loratlas.study.scoring_options import FEW_ROWS, RANKS_BEYOND, ScoringOptions
from loratlas.study.spec import StudySpec
from loratlas.train.base import Base
from loratlas.train.randomness import row_order


def score_by(options: ScoringOptions, subject: Subject, nulls: Sequence[Null] = ()) -> ScoreTable:
    """Score a subject that was made for these options.

    Args:
        options: the method.
        subject: what `subject_of` returned.
        nulls: what the scores are held against.

    Raises:
        RequestError: the method cannot score this, or cannot be held against a null.
        TrialError: a loss or a value is no number.
    """
    table = score(scorer(options.method, options.options), subject, nulls)
    return replace(table, settings={**table.settings, "options": dict(options.options)})


def subject_of(
    study: StudySpec, anatomy: Anatomy, data: PreparedData, base: Base, options: ScoringOptions
) -> Subject:
    """Return what is scored of a study whose parts are at hand.

    Args:
        study: the study.
        anatomy: of its model.
        data: its rows; those of the training split are read.
        base: its base, lent.
        options: how it is scored.

    Raises:
        RequestError: the options do not fit the model or the rows.
    """
    sites = candidates(study.root, anatomy, options.sites)
    for site in sites:
        if any(site.path == head or site.path.startswith(f"{head}.") for head in base.head):
            raise StudyError(
                f"{site.path} belongs to the new classification head ({', '.join(base.head)}), "
                "which is trained whole in every placement; leave it out"
            )
    rank = study.lora.rank
    indices = choose_rows(study, data, scorer(options.method, options.options), options)
    return Subject(
        base=base,
        anatomy=anatomy,
        sites=sites,
        rows=tuple(data.train.rows[index] for index in indices),
        lora=study.lora,
        training=study.training,
        seed=options.seed,
        batch=options.batch,
        max_rank=RANKS_BEYOND * rank if options.max_rank is None else options.max_rank,
        masking=data.masking,
        indices=indices,
    )


def candidates(root: Path, anatomy: Anatomy, rule: str) -> tuple[Site, ...]:
    """Return the sites in question, in the order of the model.

    Args:
        root: where relative paths in ``file(...)`` start.
        anatomy: the model.
        rule: which; its ranks play no part.

    Raises:
        RuleError: the rule cannot be read.
        PlacementError: it does not fit the model.
    """
    try:
        placement = place(anatomy, rule, root=root)
    except PlacementError as error:
        raise PlacementError(f"the sites to score: {error}") from error
    return tuple(adapter.site for adapter in placement.adapters)


def choose_rows(
    study: StudySpec, data: PreparedData, method: Scorer, options: ScoringOptions
) -> tuple[int, ...]:
    """Return which training rows are read: the first that a trial of this seed would see.

    Returns:
        their indices, in the order of the trial.

    Raises:
        StudyError: there are not as many as are asked for.
    """
    if not method.needs.rows:
        return ()
    num_rows, count = len(data.train.rows), options.rows
    if count is None:
        count = num_rows if method.needs.training else min(FEW_ROWS, num_rows)
    elif not 2 <= count <= num_rows:
        raise StudyError(
            f"{study.path}: {count} rows are to be scored, and there are {num_rows} training "
            f"rows; allowed: 2 to {num_rows}"
        )
    return tuple(row_order(options.seed, 0, num_rows)[:count].tolist())
