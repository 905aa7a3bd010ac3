"""How a study is carried out: what is missing is done, what is done is left alone.

Everything that can be wrong with the request is looked at before the run folder is touched.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import torch

from loratlas.errors import RunFolderError, TrialError
from loratlas.redaction import RedactedFormatter
from loratlas.study.circumstances import Circumstances
from loratlas.study.engines import choose_engines, prefix_for
from loratlas.study.environment import environment
from loratlas.study.folder import check_folder
from loratlas.study.holding import held
from loratlas.study.learning import learn, require_learnable
from loratlas.study.measuring import Measuring
from loratlas.study.options import RunOptions
from loratlas.study.progress import Listener
from loratlas.study.records import BASE
from loratlas.study.request import Request, make_request
from loratlas.study.resolve import ResolvedPlacement
from loratlas.study.safety import Safety, heed
from loratlas.study.setting import keep_setting
from loratlas.study.spec import StudySpec
from loratlas.study.store import Store
from loratlas.study.tracking.mirror import Mirror
from loratlas.study.tracking.trackers import require_installed
from loratlas.study.training import Training
from loratlas.study.trial_runner import Bench, score_rows
from loratlas.study.trials import (
    Validated,
    at_chosen_rate,
    choose_learning_rate,
    num_trials,
    sweep,
    swept_seeds,
)
from loratlas.train.probe import ProbeTask, probe
from loratlas.train.reference import num_steps

VALIDATION, TEST = "validation", "test"
_ENVIRONMENT = "environment"
_USUAL = RunOptions()


def run_study(
    study: StudySpec,
    folder: Path,
    listener: Listener,
    options: RunOptions = _USUAL,
    circumstances: Circumstances | None = None,
) -> Path:
    """Carry out what is missing of a study in a run folder.

    Args:
        study: the study.
        folder: the run folder.
        listener: hears of it.
        options: what a person says about the run, beside the study.
        circumstances: who holds the folder, and who may ask for a stop; None: this process
            holds it, and nobody asks.

    Returns:
        the run folder; another than was given where a new version began.

    Raises:
        RequestError: the study does not fit its model or data, or the folder holds
            another study; nothing was written.
        StoreError: the store cannot be written.
        StopRequested: a stop was asked for; what is under way is kept.
    """
    require_installed(study.track, study.path)
    check_folder(folder)
    request = make_request(study, listener)
    require_learnable(request)
    around = circumstances or alone(study, folder, options)
    with around.hold(request.identity) as (place, store), _logged_to(place / "run.log"):
        bench = _bench(request, place)
        _keep_environment(store, bench, listener)
        request = learn(request, store, listener)
        with Mirror(study, store, place, listener) as mirror:
            _carry_out(_Work(request, store, bench, listener, mirror, options, around))
    return place


def alone(study: StudySpec, folder: Path, options: RunOptions = _USUAL) -> Circumstances:
    """Return the circumstances of a run that this process carries out by itself."""
    return Circumstances(
        hold=lambda identity: held(folder, study, identity, new_version=options.new_version)
    )


class _Work(NamedTuple):
    """A request with everything that its run writes to."""

    request: Request
    store: Store
    bench: Bench
    listener: Listener
    mirror: Mirror
    options: RunOptions
    around: Circumstances

    @property
    def study(self) -> StudySpec:
        return self.request.study

    @property
    def placements(self) -> Sequence[ResolvedPlacement]:
        return self.request.placements

    @property
    def measuring(self) -> Measuring:
        request = self.request
        return Measuring(
            measures=request.measures,
            base=request.base,
            store=self.store,
            folder=self.bench.folder,
            listener=self.listener,
            stop=self.around.stop,
        )

    @property
    def steps_per_trial(self) -> int:
        return num_steps(self.study.training, len(self.bench.train))


def _bench(request: Request, folder: Path) -> Bench:
    splits = {VALIDATION: request.data.validation, TEST: request.data.test}
    return Bench(
        base=request.base,
        train=request.data.train.rows,
        scored={name: split.rows for name, split in splits.items() if split.rows},
        folder=folder,
        environment=environment(request.base.device),
        masking=request.data.masking,
    )


def _carry_out(work: _Work) -> None:
    keep_setting(work.store, work.request, work.bench)
    _score_base(work)
    work.measuring.of_base()
    if work.options.probe:
        _probe_placements(work)
    work.mirror.add(work.store.trials().values())
    engines = choose_engines(work.request, work.options)
    with prefix_for(work.request, engines.room, work.options, work.bench.folder) as prefix:
        safety = Safety.of(work.bench.folder, work.options, work.around)
        training = Training(
            request=work.request,
            store=work.store,
            bench=work.bench,
            engines=engines,
            prefix=prefix,
            listener=work.listener,
            tell=lambda record: work.mirror.add([record]),
            safety=safety,
        )
        chosen = _train(work, training)
        safety.clear()
        for note in prefix.notes:
            work.listener.say(note)
    work.measuring.of_trials(work.placements, chosen)
    work.store.set_meta("finished", True)


def _train(work: _Work, training: Training) -> dict[str, float | None]:
    """Run the trials of every rate, then those of the other seeds; return the chosen rates."""
    trials = num_trials(work.study, work.placements)
    work.listener.begin(f"training {trials} trials", trials * work.steps_per_trial)
    if len(work.study.training.learning_rate) == 1:
        only = work.study.training.learning_rate[0]
        work.store.set_meta("chosen", dict.fromkeys(work.study.placements, only))
    swept = sweep(work.study, work.placements)
    work.store.set_meta("wanted", training.digests(swept))
    training.run(swept)
    chosen = chosen_rates(work.study, work.placements, work.store)
    work.store.set_meta("chosen", chosen)
    rest = at_chosen_rate(work.study, work.placements, chosen)
    work.store.set_meta("wanted", training.digests([*swept, *rest]))
    work.store.set_meta("rates_chosen", True)
    training.run(rest)
    work.listener.end()
    return chosen


def _keep_environment(store: Store, bench: Bench, listener: Listener) -> None:
    """Keep what a run goes on with; refuse another kind of device, say what else has changed.

    Raises:
        RunFolderError: its trials would not be comparable.
    """
    began, now = store.meta(_ENVIRONMENT) or bench.environment, bench.environment
    if began["device"] != now["device"]:
        raise RunFolderError(
            f"{bench.folder}: its trials ran on {began['device']}, this is {now['device']}; "
            "set `device` in the study file, or give another folder with --out"
        )
    changed = [
        f"{key} was {began.get(key)}, now {now[key]}" for key in now if began.get(key) != now[key]
    ]
    if changed:
        listener.say(f"since this run began, {'; '.join(changed)}: numbers may differ by it")
    store.set_meta(_ENVIRONMENT, now)


def _score_base(work: _Work) -> None:
    if work.store.scores(BASE).keys() >= work.bench.scored.keys():
        return
    work.listener.say("scoring the untuned base")
    scores = work.bench.score(work.request.base.model)
    for split, found in scores.items():
        if not math.isfinite(found.loss):
            raise TrialError(f"the untuned base gives the {split} rows a loss of {found.loss}")
    work.store.set_base_scores(scores)


def _probe_placements(work: _Work) -> None:
    known = work.store.probes()
    missing = {
        placement.digest: placement
        for placement in work.placements
        # A probe trains a placement where it begins: of one that moves it would say nothing.
        if placement.moving is None and placement.digest not in known
    }
    if not missing:
        return
    work.listener.begin("probing each placement alone", len(missing))
    for digest, placement in missing.items():
        heed(work.around.stop)
        task = ProbeTask(
            model=work.request.base.ref,
            device=work.bench.base.device.type,
            placement=placement.placement,
            rows=work.bench.train,
            training=work.study.training,
            lora_dropout=work.study.lora.dropout,
            num_threads=torch.get_num_threads(),
            masking=work.bench.masking,
            scored=work.bench.longest_scored,
            score=score_rows,
        )
        try:
            work.store.set_probe(digest, probe(task))
        except TrialError as error:
            heed(work.around.stop)  # Ctrl-C ends a probe's process, too
            work.listener.say(f"{placement.name}: the probe failed: {error}")
        work.listener.advance()
    work.listener.end()


def chosen_rates(
    study: StudySpec, placements: Sequence[ResolvedPlacement], store: Store
) -> dict[str, float | None]:
    """Return the rate that the validation rows choose for each placement."""
    trials = store.trials().values()
    seeds = swept_seeds(study)
    losses = {t.digest: store.scores(t.digest).get(VALIDATION) for t in trials}
    chosen = {}
    for placement in placements:
        validated = [
            Validated(
                learning_rate=t.learning_rate,
                status=t.status,
                loss=None if (score := losses[t.digest]) is None else score.loss,
            )
            for t in trials
            if t.placement_digest == placement.digest and t.seed in seeds
        ]
        chosen[placement.name] = choose_learning_rate(validated)
    return chosen


class _LogFile(logging.FileHandler):
    """A log that is left as it is where the disk is full: the run neither ends nor speaks of it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Let a line go that cannot be written."""

    def close(self) -> None:
        """Let go of the file, whole or not."""
        with suppress(OSError):
            super().close()


@contextmanager
def _logged_to(path: Path) -> Iterator[None]:
    """Send what the package logs to a file while a run goes on."""
    package = logging.getLogger("loratlas")
    handler = _LogFile(path, encoding="utf-8", delay=True)
    handler.setFormatter(RedactedFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    package.addHandler(handler)
    propagated, package.propagate = package.propagate, False
    try:
        yield
    finally:
        package.propagate = propagated
        package.removeHandler(handler)
        handler.close()
