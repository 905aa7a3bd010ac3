"""What is measured beside the loss, on which models, and what of it is still missing?

Measures are no part of a trial: they are taken of its saved adapter, and only of the trials at
the chosen rate, which alone are read. So a measure that is added to a study, or changed in it,
costs no training: what is missing is taken when the study is run again.
"""

import logging
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loratlas.errors import RequestError, TrialError
from loratlas.measure.forgetting import PreparedForgetting, prepare_forgetting
from loratlas.measure.measures import ForgettingMeasure, Measure, TaskMeasure
from loratlas.measure.task_index import find_task
from loratlas.placement.placement import Placement
from loratlas.study.circumstances import never
from loratlas.study.inside import adapter_fault
from loratlas.study.moving import placement_of
from loratlas.study.progress import Listener
from loratlas.study.records import BASE, TrialRecord
from loratlas.study.resolve import ResolvedPlacement
from loratlas.study.safety import heed
from loratlas.study.spec import StudySpec
from loratlas.study.store import Store
from loratlas.train.adapters import saved_adapters
from loratlas.train.base import Base

if TYPE_CHECKING:
    from loratlas.measure.harness import PreparedTask

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """Everything that measures are taken with.

    Attributes:
        measures: what is measured.
        base: the frozen base.
        store: where it is kept.
        folder: the run folder.
        listener: hears of it.
        stop: whether a person asked for a stop; asked between measures.
    """

    measures: "Sequence[PreparedTask | PreparedForgetting]"
    base: Base
    store: Store
    folder: Path
    listener: Listener
    stop: Callable[[], bool] = never

    def of_base(self) -> None:
        """Measure the untuned base, before anything is trained.

        Raises:
            TrialError: a measure fails.
        """
        for measure in self._missing(BASE):
            self.listener.say(f"measuring {measure.name} on the untuned base")
            self._take(measure, BASE, self.base.model)
            cut = self.store.measurements(BASE)[measure.name].num_truncated
            if cut:
                self.listener.say(
                    f"{measure.name}: {cut:,} of {measure.num_questions:,} prompts are longer than "
                    "the model reads beside the answer; they are cut on the left"
                )

    def of_trials(
        self, placements: Sequence[ResolvedPlacement], chosen: Mapping[str, float | None]
    ) -> None:
        """Measure the saved adapters of the trials at the chosen rates.

        Args:
            placements: the placements of the study.
            chosen: the rate of each, by its name; None where no rate is eligible.

        Raises:
            TrialError: some measures fail; the others are kept.
        """
        by_digest = {each.digest: each.placement for each in placements}
        read = {(each.digest, chosen[each.name]) for each in placements}
        missing = [
            (trial, self._missing(trial.digest))
            for trial in self.store.trials().values()
            if trial.status == "done" and (trial.placement_digest, trial.learning_rate) in read
        ]
        num_missing = sum(len(measures) for _, measures in missing)
        if not num_missing:
            return
        self.listener.begin(f"taking {num_missing} measures", num_missing)
        failed = []
        for trial, measures in missing:
            failed += self._of_trial(
                trial, placement_of(trial, by_digest[trial.placement_digest]), measures
            )
        self.listener.end()
        if failed:
            raise TrialError(
                f"{len(failed)} of {num_missing} measures failed, first {failed[0]}; adapters and "
                "the others are kept, and the same command tries again"
            )

    def _of_trial(
        self,
        trial: TrialRecord,
        placement: Placement,
        measures: "Sequence[PreparedTask | PreparedForgetting]",
    ) -> list[str]:
        """Take measures of one trial; return a line for each that failed."""
        failed = []
        for measure in measures:
            heed(self.stop)
            try:
                fault = adapter_fault(self.folder, trial.adapter)
                if fault is not None:
                    raise TrialError(fault)
                adapter = self.folder / str(trial.adapter)
                with saved_adapters(self.base, adapter, placement) as model:
                    self._take(measure, trial.digest, model)
            except Exception as error:  # the others are taken all the same
                log.error("%s of trial %s:\n%s", measure.name, trial.digest, traceback.format_exc())
                failed.append(f"{measure.name} of {trial.adapter}: {error}")
                self.listener.say(failed[-1])
            self.listener.advance()
        return failed

    def _missing(self, trial: str) -> "list[PreparedTask | PreparedForgetting]":
        known = self.store.measurements(trial)
        return [
            measure
            for measure in self.measures
            if measure.name not in known or known[measure.name].digest != measure.digest
        ]

    def _take(self, measure: "PreparedTask | PreparedForgetting", trial: str, model: Any) -> None:
        found = measure.take(model, self.base)
        self.store.set_measurement(trial, measure.name, measure.digest, found)


def require_known(study: StudySpec) -> None:
    """Refuse tasks that lm_eval does not know, before a model is loaded.

    Raises:
        StudyError: lm_eval knows no such task, or is not installed.
    """
    with _in_file(study):
        for measure in study.measures:
            if isinstance(measure, TaskMeasure):
                find_task(measure.harness_name)


def prepare_measures(
    study: StudySpec, base: Base, listener: Listener
) -> "list[PreparedTask | PreparedForgetting]":
    """Read and build all that the measures need, so that nothing is missing after training.

    Raises:
        RequestError: a measure cannot be taken of this base, or its data cannot be read.
    """
    with _in_file(study):
        return [_prepared(measure, base, study.root, listener) for measure in study.measures]


@contextmanager
def _in_file(study: StudySpec) -> Iterator[None]:
    """Put the study file before what is wrong with a measure."""
    try:
        yield
    except RequestError as error:
        raise type(error)(f"{study.path}: {error}") from error


def _prepared(
    measure: Measure, base: Base, root: Path, listener: Listener
) -> "PreparedTask | PreparedForgetting":
    if isinstance(measure, ForgettingMeasure):
        text = prepare_forgetting(measure, base, root=root)
        if text.num_truncated:
            listener.say(f"{text.name}: {text.num_truncated:,} of {len(text.rows):,} rows are cut")
        return text
    # lm_eval takes seconds to import, and only its tasks need it.
    from loratlas.measure.harness import prepare_task

    listener.say(f"reading {measure.name}")
    return prepare_task(measure, base, root=root)
