"""How a pack of trials is carried out: train together, save, read back, score together.

Each trial ends as a record of its own. One that diverges or cannot be saved does not touch the
others; where the whole pack cannot go on, each of its trials has failed.
"""

import logging
import math
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from loratlas.measure.packed import score_packed
from loratlas.measure.scores import SplitScore
from loratlas.placement.placement import Placement
from loratlas.study.moving import Moving
from loratlas.study.packs import Pack
from loratlas.study.records import TrialRecord
from loratlas.study.trial_runner import Bench
from loratlas.train.adapters import require_close_logits, saved_adapters
from loratlas.train.checkpoint import Keeper
from loratlas.train.gauge import Gauge
from loratlas.train.outcome import Fit
from loratlas.train.packed.elastic import ElasticSlot
from loratlas.train.packed.fit import ENGINE, fit_pack
from loratlas.train.packed.heap import keep_freed_memory
from loratlas.train.packed.opening import PackedBase
from loratlas.train.packed.passes import Passes
from loratlas.train.packed.saved import reload_slot, save_slot
from loratlas.train.packed.slots import Slot
from loratlas.train.policy import Policy
from loratlas.train.prefix import PrefixCache
from loratlas.train.reference import DivergedError, num_steps
from loratlas.train.trial import TrialSpec

log = logging.getLogger(__name__)

Scores = dict[str, SplitScore]


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedTrial:
    """A trial of a pack.

    Attributes:
        spec: the trial.
        placement: its placement, resolved; where it begins, if it moves.
        moving: what moves it, None where it stands still.
        adapter: folder for its adapter, relative to the run folder.
        attempts: how often it was started, this time included.
    """

    spec: TrialSpec
    placement: Placement
    moving: Moving | None = None
    adapter: str
    attempts: int


def run_pack(
    bench: Bench,
    packed: PackedBase,
    prefix: PrefixCache,
    pack: Pack,
    trials: Sequence[PackedTrial],
    *,
    on_step: Callable[[int, int], None],
    keeper: Keeper | None = None,
) -> list[tuple[TrialRecord, Scores]]:
    """Carry out the trials of a pack.

    Args:
        bench: what the trials of the run share.
        packed: the base, taken apart.
        prefix: keeps hidden states of the frozen base for all packs of the run.
        pack: the pack.
        trials: its trials, in its order.
        on_step: called after each optimiser step with (steps done, steps in all).
        keeper: keeps the state of the training, and asks it to stop.

    Returns:
        record and scores of each trial, in order; one that is not done has no scores.
    """
    work = _PackWork(bench, packed, pack, trials)
    try:
        work.carry_out(prefix, on_step, keeper)
    except Exception as error:  # failed trials are records, and the other packs go on
        log.error("pack %d failed:\n%s", pack.number, traceback.format_exc())
        for number in work.unfinished:
            work.fail(number, error)
    return [work.record(number) for number in range(len(trials))]


class _PackWork:
    """A pack on its way."""

    def __init__(
        self, bench: Bench, packed: PackedBase, pack: Pack, trials: Sequence[PackedTrial]
    ) -> None:
        self._bench = bench
        self._packed = packed
        self._pack = pack
        self._trials = trials
        self._outcomes: list[dict[str, Any] | None] = [None] * len(trials)
        self._scores: list[Scores] = [{} for _ in trials]
        self._totals: dict[str, Any] = {"number": pack.number, "trials": len(trials)}
        self._slots: list[Slot] = []
        self._policies: dict[int, Policy] = {}

    @property
    def unfinished(self) -> list[int]:
        """The trials that nothing is known of yet."""
        return [number for number, outcome in enumerate(self._outcomes) if outcome is None]

    def carry_out(
        self, prefix: PrefixCache, on_step: Callable[[int, int], None], keeper: Keeper | None
    ) -> None:
        """Train all, then save, check and score those that are whole."""
        steps = num_steps(self._trials[0].spec.training, len(self._bench.train))
        self._policies = {
            number: trial.moving.policy(steps)
            for number, trial in enumerate(self._trials)
            if trial.moving is not None
        }
        self._slots = [self._fresh(number) for number in range(len(self._trials))]
        gauge = Gauge(self._bench.base.device)
        began = time.perf_counter()
        with gauge.phase("train"):
            fits = self._train(prefix, on_step, keeper)
        self._totals |= {"seconds": time.perf_counter() - began, "memory": gauge.phases}
        for number, fit in enumerate(fits):
            if isinstance(fit, DivergedError):
                self._outcomes[number] = {"status": "diverged", "error": str(fit)}
        self._slots = [s.at_rest() if isinstance(s, ElasticSlot) else s for s in self._slots]
        self._each(self._save)
        self._each(lambda number: self._check(number, prefix))
        with gauge.phase("score"):
            self._score(prefix)
        self._each(lambda number: self._finish(number, fits[number]))

    def fail(self, number: int, error: Exception) -> None:
        """Put down that a trial failed."""
        self._outcomes[number] = {"status": "failed", "error": f"{type(error).__name__}: {error}"}

    def record(self, number: int) -> tuple[TrialRecord, Scores]:
        """Return the record of a trial, and its scores where it is done."""
        trial, outcome = self._trials[number], self._outcomes[number]
        assert outcome is not None
        record = TrialRecord(
            digest=trial.spec.digest,
            placement_digest=trial.spec.placement_digest,
            learning_rate=trial.spec.learning_rate,
            seed=trial.spec.seed,
            engine=ENGINE,
            attempts=trial.attempts,
            environment=self._bench.environment,
            pack=dict(self._totals),
            **outcome,
        )
        return record, self._scores[number] if record.status == "done" else {}

    def _fresh(self, number: int) -> Slot:
        trial = self._trials[number]
        seed, dropout = trial.spec.seed, trial.spec.lora_dropout
        device = self._bench.base.device
        if trial.moving is None:
            return Slot.new(trial.placement, seed=seed, dropout=dropout, device=device)
        return ElasticSlot.begin(
            trial.placement,
            trial.moving.capacity,
            form=self._policies[number].form,
            seed=seed,
            dropout=dropout,
            device=device,
        )

    def _train(
        self, prefix: PrefixCache, on_step: Callable[[int, int], None], keeper: Keeper | None
    ) -> list[Fit | DivergedError]:
        bench, spec = self._bench, self._trials[0].spec
        passes = Passes(self._pack.tokens_per_pass or 1)
        if bench.base.device.type == "cpu":
            keep_freed_memory()
        bench.base.model.train()
        try:
            with self._packed.opened(self._slots, prefix) as flow:
                fits = fit_pack(
                    flow,
                    bench.train,
                    spec.training,
                    learning_rates=[trial.spec.learning_rate for trial in self._trials],
                    passes=passes,
                    masking=bench.masking,
                    policies=self._policies,
                    on_step=on_step,
                    keeper=keeper,
                )
        finally:
            bench.base.model.eval()
        self._totals |= {"tokens_per_pass": passes.limit, "halved": passes.num_halved}
        return fits

    def _each(self, work: Callable[[int], None]) -> None:
        """Do something for each trial that is whole; one that fails at it goes no further."""
        for number in self.unfinished:
            try:
                work(number)
            except DivergedError as error:
                self._outcomes[number] = {"status": "diverged", "error": str(error)}
            except Exception as error:
                digest = self._trials[number].spec.digest
                log.error("trial %s failed:\n%s", digest, traceback.format_exc())
                self.fail(number, error)

    def _folder(self, number: int) -> Path:
        return self._bench.folder / self._trials[number].adapter

    def _save(self, number: int) -> None:
        if not torch.isfinite(self._slots[number].values).all():
            raise DivergedError("diverged: the trained adapters are no numbers")
        save_slot(self._slots[number], self._folder(number), self._bench.base)
        reload_slot(self._slots[number], self._folder(number))

    def _check(self, number: int, prefix: PrefixCache) -> None:
        """Hold the packed engine's logits against what PEFT computes with the saved adapter."""
        rows = self._bench.shortest_scored
        with torch.no_grad(), self._packed.opened([self._slots[number]], prefix) as flow:
            logits = flow.logits_of(0, rows)
        if not torch.isfinite(logits).all():
            raise DivergedError("diverged: the trained adapters give logits that are no numbers")
        placement = self._slots[number].placement
        with saved_adapters(self._bench.base, self._folder(number), placement) as model:
            require_close_logits(logits, self._bench.predicted_logits(model, rows))

    def _score(self, prefix: PrefixCache) -> None:
        whole = self.unfinished
        if not whole:
            return
        with self._packed.opened([self._slots[number] for number in whole], prefix) as flow:
            for split, rows in self._bench.scored.items():
                for number, found in zip(whole, score_packed(flow, rows), strict=True):
                    self._scores[number][split] = found

    def _finish(self, number: int, fit: Fit | DivergedError) -> None:
        assert isinstance(fit, Fit)
        for split, found in self._scores[number].items():
            if not math.isfinite(found.loss):
                raise DivergedError(f"diverged: the {split} loss is {found.loss} after training")
        moved = fit.trajectory is not None
        self._outcomes[number] = {
            "status": "done",
            "trajectory": fit.trajectory.to_json() if fit.trajectory is not None else None,
            "final": self._slots[number].placement.to_json()["placement"] if moved else None,
            "losses": list(fit.losses),
            "adapter": self._trials[number].adapter,
            "adapter_bytes": sum(file.stat().st_size for file in self._folder(number).iterdir()),
        }
