"""How are the sites of a study scored from its file alone?"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from loratlas.allocate.table import ScoreTable
from loratlas.anatomy.sites import Anatomy
from loratlas.score.methods import scorer, scorers
from loratlas.score.nulls import Null
from loratlas.score.run import require_comparable
from loratlas.score.scorer import Needs, Subject
from loratlas.study.progress import Listener
from loratlas.study.request import model_for, read_anatomy, read_data, require_fit
from loratlas.study.scoring import candidates, choose_rows, score_by, subject_of
from loratlas.study.scoring_options import (
    BRUTE_FORCE,
    FEW_ROWS,
    TITLES,
    TRIED,
    UNIT,
    ScoringOptions,
)
from loratlas.study.spec import StudySpec
from loratlas.train.base import load_base, pick_device


def score_study(
    study: StudySpec,
    options: ScoringOptions,
    listener: Listener,
    nulls: Sequence[Null] = (),
) -> ScoreTable:
    """Load the base of a study and score its sites by a method.

    Args:
        study: the study.
        options: the method, and how it reads.
        listener: hears of it.
        nulls: what the scores are held against.

    Raises:
        RequestError: model, rows or options do not fit, or the method cannot score them.
        TrialError: a loss or a value is no number.
    """
    method = scorer(options.method, options.options)
    require_comparable(method, nulls)
    subject = load_subject(study, options, listener)
    listener.say(f"scoring {len(subject.sites)} sites by {method.name}")
    return score_by(options, subject, nulls)


def load_subject(study: StudySpec, options: ScoringOptions, listener: Listener) -> Subject:
    """Load the base of a study, and return it with its training rows as a method sees them.

    Raises:
        RequestError: model, rows or options do not fit.
    """
    method = scorer(options.method, options.options)
    device = pick_device(study.device)
    listener.say(f"reading {study.model.name}")
    data = read_data(study)
    model = model_for(study, data)
    anatomy = read_anatomy(model)
    # What can be wrong with the options is said before weights are loaded.
    candidates(study.root, anatomy, options.sites)
    choose_rows(study, data, method, options)
    base = load_base(
        model,
        dtype=study.training.dtype,
        base_dropout=study.training.base_dropout,
        device=device,
    )
    require_fit(study, data, base)
    return subject_of(study, anatomy, data, base, options)


def anatomy_of(study: StudySpec) -> Anatomy:
    """Return the anatomy of a study's model, with a head for the classes of its rows."""
    if study.data.format != "classification":
        return read_anatomy(study.model)
    return read_anatomy(model_for(study, read_data(study)))


def described_methods() -> list[dict[str, Any]]:
    """Return every method with what it says, needs and costs, as plain data."""
    found = [
        {
            "name": method.name,
            "title": method.title,
            "unit": method.unit,
            "higher_is_better": method.higher_is_better,
            "granularity": method.granularity,
            "needs": [need for need, is_so in asdict(method.needs).items() if is_so],
            "cost": _cost(method.needs),
        }
        for method in scorers()
    ]
    tried = {
        "unit": UNIT,
        "higher_is_better": True,
        "granularity": "group",
        "needs": ["rows", "labels", "gradients", "training"],
        "cost": TRIED,
    }
    return [*found, *({"name": name, "title": TITLES[name], **tried} for name in BRUTE_FORCE)]


def _cost(needs: Needs) -> str:
    """Return what a method sends through the model where nothing is said of rows, in words.

    A pass back through frozen weights takes about as long as one forward, and training on a row
    is little more than both.
    """
    if needs.training:
        return "a trial: every visit to a training row, forward and backward"
    if not needs.rows:
        return "nothing"
    if needs.gradients:
        return f"{FEW_ROWS} rows forward and backward: about as training on them"
    return f"{FEW_ROWS} rows forward: about half of training on them"
