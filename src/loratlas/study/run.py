"""How a study is carried out: what is missing is done, what is done is left alone.

Everything that can be wrong with the request is looked at before the run folder is touched.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

from loratlas.errors import RunFolderError, TrialError
from loratlas.study.engines import choose_engines, prefix_for
from loratlas.study.environment import environment
from loratlas.study.folder import check_folder, check_identity, make_folder, open_folder
from loratlas.study.learning import learn, require_learnable
from loratlas.study.lock import only_controller
from loratlas.study.measuring import Measuring
from loratlas.study.options import RunOptions
from loratlas.study.progress import Listener
from loratlas.study.records import BASE
from loratlas.study.request import Request, make_request
from loratlas.study.resolve import ResolvedPlacement
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
_USUAL = RunOptions()


def run_study(
    study: StudySpec, folder: Path, listener: Listener, options: RunOptions = _USUAL
) -> None:
    """Carry out what is missing of a study in a run folder.

    Args:
        study: the study.
        folder: the run folder.
        listener: hears of it.
        options: what a person says about the run, beside the study.

    Raises:
        RequestError: the study does not fit its model or data, or the folder holds
            another study; nothing was written.
        StoreError: the store cannot be written.
    """
    require_installed(study.track, study.path)
    check_folder(folder)
    request = make_request(study, listener)
    require_learnable(request)
    identity = request.identity
    check_identity(folder, identity)
    make_folder(folder)
    with only_controller(folder), _logged_to(folder / "run.log"):
        store = open_folder(folder, study, identity)
        try:
            request = learn(request, store, listener)
            with Mirror(study, store, folder, listener) as mirror:
                bench = _bench(request, folder)
                _carry_out(_Work(request, store, bench, listener, mirror, options))
        finally:
            store.close()


class _Work(NamedTuple):
    """A request with everything that its run writes to."""

    request: Request
    store: Store
    bench: Bench
    listener: Listener
    mirror: Mirror
    options: RunOptions

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
    _require_same_device(work)
    keep_setting(work.store, work.request, work.bench)
    _score_base(work)
    work.measuring.of_base()
    if work.options.probe:
        _probe_placements(work)
    work.mirror.add(work.store.trials().values())
    engines = choose_engines(work.request, work.options)
    with prefix_for(work.request, engines.room, work.options, work.bench.folder) as prefix:
        training = Training(
            request=work.request,
            store=work.store,
            bench=work.bench,
            engines=engines,
            prefix=prefix,
            listener=work.listener,
            tell=lambda record: work.mirror.add([record]),
        )
        chosen = _train(work, training)
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


def _require_same_device(work: _Work) -> None:
    """Refuse to go on with a run on another kind of device; say what else has changed.

    Raises:
        RunFolderError: its trials would not be comparable.
    """
    began, now = work.store.meta("environment"), work.bench.environment
    if began is None:
        return
    if began["device"] != now["device"]:
        raise RunFolderError(
            f"{work.bench.folder}: its trials ran on {began['device']}, this is {now['device']}; "
            "set `device` in the study file, or give another folder with --out"
        )
    changed = [
        f"{key} was {began.get(key)}, now {now[key]}" for key in now if began.get(key) != now[key]
    ]
    if changed:
        work.listener.say(f"since this run began, {'; '.join(changed)}: numbers may differ by it")


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
    missing = {p.digest: p for p in work.placements if p.digest not in known}
    if not missing:
        return
    work.listener.begin("probing each placement alone", len(missing))
    for digest, placement in missing.items():
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


@contextmanager
def _logged_to(path: Path) -> Iterator[None]:
    """Send what the package logs to a file while a run goes on."""
    package = logging.getLogger("loratlas")
    handler = logging.FileHandler(path, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    package.addHandler(handler)
    propagated, package.propagate = package.propagate, False
    try:
        yield
    finally:
        package.propagate = propagated
        package.removeHandler(handler)
        handler.close()
