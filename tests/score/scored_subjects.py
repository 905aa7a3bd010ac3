"""Subjects for the tests of scorers: the tiny GPT-2, its rows, and some of its sites."""

from loratlas.placement.placement import LoraSpec, place
from loratlas.score.scorer import Found, Needs, Subject
from loratlas.train.trial import TrainingSpec

TRAINING = TrainingSpec(steps=3, batch=4, learning_rate=(1e-3, 1e-2, 3e-2))


def subject_of(base, anatomy, rows, *, rule="all", training=TRAINING, **changes):
    """Return a subject; `changes` replace what it has otherwise."""
    sites = tuple(adapter.site for adapter in place(anatomy, rule).adapters)
    fields = {
        "base": base,
        "anatomy": anatomy,
        "sites": sites,
        "rows": tuple(rows),
        "lora": LoraSpec(rank=2, alpha=4),
        "training": training,
        "seed": 0,
        "max_rank": 4,
    }
    return Subject(**(fields | changes))


class Said:
    """A scorer that says what it is told to."""

    name, title, unit = "said", "what it is told", "1"
    higher_is_better = True
    granularity = "site"

    def __init__(self, found, *, needs=None, reason=None):
        self.found, self.reason = found, reason
        self.needs = needs or Needs(labels=True)
        self.subjects = []

    def why_not(self, subject):  # noqa: ARG002
        return self.reason

    def measure(self, subject):
        self.subjects.append(subject)
        found = self.found(subject) if callable(self.found) else self.found
        return found if isinstance(found, Found) else Found(values=found)
