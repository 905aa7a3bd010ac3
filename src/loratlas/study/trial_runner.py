"""How one trial is carried out: train, save, read back, score; whatever happens is a record."""

import logging
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from loratlas.data.masked import Masking
from loratlas.data.rows import TokenizedRow
from loratlas.measure.likelihood import score
from loratlas.measure.scores import SplitScore
from loratlas.placement.placement import Placement
from loratlas.study.records import TrialRecord
from loratlas.train.adapters import (
    new_adapters,
    require_equal_logits,
    save_adapters,
    saved_adapters,
)
from loratlas.train.base import Base
from loratlas.train.checkpoint import Keeper
from loratlas.train.gauge import Gauge
from loratlas.train.outcome import Fit
from loratlas.train.packed.batch import Whole
from loratlas.train.reference import ENGINE, DivergedError, fit
from loratlas.train.trial import TrialSpec

log = logging.getLogger(__name__)

_CHECKED_ROWS = 4
_COMPARED_ROWS = 2
SCORED_AT_ONCE = 16
"""Rows of one forward pass when splits are scored."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What every trial of a run shares.

    Attributes:
        base: the frozen base, lent to one trial at a time.
        train: the training rows.
        scored: the rows that every trial is scored on, by split.
        folder: the run folder.
        environment: versions and device, kept with every trial.
        masking: how training rows are masked, for a masked language model.
    """

    base: Base
    train: Sequence[TokenizedRow]
    scored: Mapping[str, Sequence[TokenizedRow]]
    folder: Path
    environment: dict[str, Any]
    masking: Masking | None = None

    def score(self, model: Any) -> dict[str, SplitScore]:
        """Score a model on every split."""
        return {split: score_rows(self.base, model, rows) for split, rows in self.scored.items()}

    @property
    def longest_scored(self) -> list[TokenizedRow]:
        """The longest rows that every trial is scored on: those of its largest forward pass."""
        rows = [row for split in self.scored.values() for row in split]
        return sorted(rows, key=lambda row: -row.num_read)[:SCORED_AT_ONCE]

    @property
    def checked_rows(self) -> Sequence[TokenizedRow]:
        """A few scored rows, on which saved adapters are held against the trained ones."""
        return next(iter(self.scored.values()))[:_CHECKED_ROWS]

    @property
    def shortest_scored(self) -> Sequence[TokenizedRow]:
        """The shortest rows that every trial is scored on; two engines are compared on them."""
        rows = [row for split in self.scored.values() for row in split]
        return sorted(rows, key=lambda row: row.num_read)[:_COMPARED_ROWS]

    def predicted_logits(self, model: Any, rows: Sequence[TokenizedRow]) -> torch.Tensor:
        """Return a model's logits at what is predicted of rows, (scored, vocabulary)."""
        layout = Whole(collator=self.base.collator, device=self.base.device)
        model.eval()
        with torch.no_grad():
            logits: torch.Tensor = model(**layout.inputs(rows)).logits
        return logits.flatten(0, 1)[layout.targets(rows).place]

    def logits(self, model: Any) -> torch.Tensor:
        """Return a model's logits on the first scored rows, rows first."""
        inputs = self.base.collator(self.checked_rows)
        del inputs["labels"]
        model.eval()
        with torch.no_grad():
            logits: torch.Tensor = model(
                **{name: tensor.to(self.base.device) for name, tensor in inputs.items()}
            ).logits
        return logits


def score_rows(base: Base, model: Any, rows: Sequence[TokenizedRow]) -> SplitScore:
    """Score rows with the base, bare or with adapters."""
    return score(model, rows, collator=base.collator, device=base.device, batch=SCORED_AT_ONCE)


def run_trial(
    bench: Bench,
    spec: TrialSpec,
    placement: Placement,
    *,
    adapter: str,
    attempts: int,
    on_step: Callable[[int, int], None],
    keeper: Keeper | None = None,
) -> tuple[TrialRecord, dict[str, SplitScore]]:
    """Carry out one trial.

    Args:
        bench: what the trials share.
        spec: the trial.
        placement: its placement, resolved.
        adapter: folder for its adapter, relative to the run folder.
        attempts: how often it was started, this time included.
        on_step: called after each optimiser step with (steps done, steps in all).
        keeper: keeps the state of the training, and asks it to stop.

    Returns:
        its record and, when it is done, its scores by split. A trial that diverges or fails
        is a record too, without scores.
    """
    outcome: dict[str, Any] = {}
    scores: dict[str, SplitScore] = {}
    gauge = Gauge(bench.base.device)
    folder = bench.folder / adapter
    try:
        run, scores = _train_and_score(bench, spec, placement, folder, on_step, gauge, keeper)
        outcome = {
            "status": "done",
            "seconds": math.fsum(run.step_seconds),
            "losses": list(run.losses),
            "adapter": adapter,
            "adapter_bytes": sum(file.stat().st_size for file in folder.iterdir()),
            "memory": gauge.phases,
            "micro_batch": run.micro_batch,
        }
    except DivergedError as error:
        outcome = {"status": "diverged", "error": str(error)}
    except Exception as error:  # a failed trial is a record, and the others go on
        log.error("trial %s failed:\n%s", spec.digest, traceback.format_exc())
        outcome = {"status": "failed", "error": f"{type(error).__name__}: {error}"}
    record = TrialRecord(
        digest=spec.digest,
        placement_digest=spec.placement_digest,
        learning_rate=spec.learning_rate,
        seed=spec.seed,
        engine=ENGINE,
        attempts=attempts,
        environment=bench.environment,
        **outcome,
    )
    return record, scores


def _train_and_score(
    bench: Bench,
    spec: TrialSpec,
    placement: Placement,
    folder: Path,
    on_step: Callable[[int, int], None],
    gauge: Gauge,
    keeper: Keeper | None,
) -> tuple[Fit, dict[str, SplitScore]]:
    base = bench.base
    with new_adapters(base, placement, seed=spec.seed, dropout=spec.lora_dropout) as model:
        with gauge.phase("train"):
            run = fit(
                base,
                model,
                bench.train,
                spec.training,
                learning_rate=spec.learning_rate,
                seed=spec.seed,
                masking=bench.masking,
                on_step=on_step,
                keeper=keeper,
            )
        trained = bench.logits(model)
        if not torch.isfinite(trained).all():
            raise DivergedError("diverged: the trained adapters give logits that are no numbers")
        save_adapters(model, placement, folder, base_name=base.ref.name, revision=base.ref.revision)
    # What is scored is what was saved: a fault in saving cannot hide behind good figures.
    with saved_adapters(base, folder, placement) as model:
        require_equal_logits(trained, bench.logits(model))
        with gauge.phase("score"):
            scores = bench.score(model)
    for split, found in scores.items():
        if not math.isfinite(found.loss):
            raise DivergedError(f"diverged: the {split} loss is {found.loss} after training")
    return run, scores
