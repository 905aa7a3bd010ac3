"""Which sections does a report have, in which order?"""

from loratlas.report.document.facts import Facts
from loratlas.report.document.pieces import Section
from loratlas.report.document.sections.adapted import adapted
from loratlas.report.document.sections.answer import answer
from loratlas.report.document.sections.audit import audit
from loratlas.report.document.sections.contrasts import contrasts
from loratlas.report.document.sections.curves import curves
from loratlas.report.document.sections.important import important
from loratlas.report.document.sections.methods import methods
from loratlas.report.document.sections.moved import moved
from loratlas.report.document.sections.rates import rates
from loratlas.report.document.sections.recommended import recommended
from loratlas.report.document.sections.resources import resources
from loratlas.report.document.sections.scored import scored
from loratlas.report.document.sections.tasks import tasks
from loratlas.report.document.sections.tradeoffs import tradeoffs
from loratlas.report.document.sections.trials import trials
from loratlas.report.document.sections.warnings import warnings

_ORDER = (
    answer,
    recommended,
    contrasts,
    tradeoffs,
    adapted,
    scored,
    moved,
    important,
    tasks,
    rates,
    curves,
    resources,
    audit,
    warnings,
    trials,
    methods,
)


def contents(facts: Facts) -> list[Section]:
    """Return the sections that have something to say, the answer first."""
    return [section for make in _ORDER if (section := make(facts)).has_content]
