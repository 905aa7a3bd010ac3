"""Every definition of perplexity, for the base and every trial of a run."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from loratlas.anatomy.read import read as read_anatomy
from loratlas.anatomy.sites import Anatomy
from loratlas.errors import ModelError, NotYetError, RunFolderError, VerificationError
from loratlas.measure.audit.rows import AuditRows
from loratlas.measure.audit.seen import Seen, Setting
from loratlas.measure.audit.variants import CORPUS, Reading, read
from loratlas.placement.placement import Placement
from loratlas.study.audit_data import rows_of_run
from loratlas.study.inside import adapter_fault
from loratlas.study.moving import placement_of
from loratlas.study.progress import Listener
from loratlas.study.records import BASE, PlacementRecord, TrialRecord
from loratlas.study.standing import standing
from loratlas.study.store import Store
from loratlas.train.adapters import saved_adapters
from loratlas.train.base import Base, load_base, max_positions, pick_device
from loratlas.train.trial import ModelRef, TrainingSpec

# In fp32 another batching moves a sum by rounding alone; in bf16 it moves each logit.
_TOLERANCES = {"fp32": 1e-6, "bf16": 1e-3}
_ACCUMULATION = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """A trial that the audit could not take: which, and why."""

    placement: str
    learning_rate: float | None
    seed: int | None
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunReadings:
    """What every variant says of a run.

    Attributes:
        split: the rows that were scored.
        setting: how they were batched.
        num_rows: scored rows.
        num_tokens: scored tokens.
        base: readings of the untuned base, by variant.
        placements: readings by placement, seed and variant; in the order of the study.
        left_out: trials at the chosen rate that are not among them.
        complete: whether the run is.
    """

    split: str
    setting: Setting
    num_rows: int
    num_tokens: int
    base: Mapping[str, Reading]
    placements: Mapping[str, Mapping[int, Mapping[str, Reading]]]
    left_out: Sequence[LeftOut]
    complete: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What a person asks of an audit.

    Attributes:
        split: which rows.
        batch: rows of a batch; None takes the study's own.
        window: longest stretch of the strided windows; None takes the model's positions.
        root: where the study file's relative paths start; None looks around the run folder.
        trust_remote_code: whether code that comes with the model may run.
    """

    split: str = "test"
    batch: int | None = None
    window: int | None = None
    root: Path | None = None
    trust_remote_code: bool = False


class _Found(NamedTuple):
    """A trial that is to be read, and the placement that it trained."""

    name: str
    placement: PlacementRecord
    trial: TrialRecord


def audit_run(folder: Path, store: Store, asked: Asked, listener: Listener) -> RunReadings:
    """Recompute every variant for the base and the trials at the chosen rates.

    Raises:
        RequestError: the run holds nothing to audit, or its data or model cannot be found.
        VerificationError: a recomputed corpus loss is not the one that the run keeps.
    """
    found, left_out = _trials(folder, store)
    study = store.meta("study")
    base = _base(store, study, asked)
    rows = _rows(folder, store, study, base, asked)
    auditor = _Auditor(store, base, rows, asked, _setting(study, asked, base))
    listener.begin("scoring", 1 + len({each.trial.digest for each in found}))
    of_base = auditor.of_base()
    listener.advance()
    placements = auditor.of_trials(folder, study, found, listener)
    listener.end()
    return RunReadings(
        split=asked.split,
        setting=auditor.setting,
        num_rows=len(rows.rows),
        num_tokens=sum(row.num_scored for row in rows.rows),
        base=of_base,
        placements={p.name: placements.get(p.name, {}) for p in store.placements()},
        left_out=left_out,
        complete=bool(standing(store)["complete"]),
    )


class _Auditor:
    """Reads the variants of one model after another, over the same rows."""

    def __init__(
        self, store: Store, base: Base, rows: AuditRows, asked: Asked, setting: Setting
    ) -> None:
        self.setting = setting
        self._store = store
        self._base = base
        self._rows = rows
        self._split = asked.split

    def of_base(self) -> dict[str, Reading]:
        return self._of(self._base.model, BASE, "the untuned base")

    def of_trials(
        self, folder: Path, study: Mapping[str, Any], found: Sequence[_Found], listener: Listener
    ) -> dict[str, dict[int, dict[str, Reading]]]:
        """Return the readings by placement and seed; a trial that two share is read once."""
        anatomy = _anatomy(self._base.ref)
        by_trial: dict[str, dict[str, Reading]] = {}
        readings: dict[str, dict[int, dict[str, Reading]]] = {}
        for name, record, trial in found:
            if trial.digest not in by_trial:
                placement = placement_of(trial, _placement(record, study, anatomy))
                adapters = folder / str(trial.adapter)
                with saved_adapters(self._base, adapters, placement) as model:
                    label = f"{name}, seed {trial.seed}"
                    by_trial[trial.digest] = self._of(model, trial.digest, label)
                listener.advance()
            readings.setdefault(name, {})[trial.seed] = by_trial[trial.digest]
        return readings

    def _of(self, model: Any, digest: str, label: str) -> dict[str, Reading]:
        seen = Seen(model, self._rows, self.setting, device=self._base.device)
        readings = read(seen)
        kept = self._store.scores(digest).get(self._split)
        if kept is not None:
            self._require_equal(readings[CORPUS], kept.loss, label)
        return readings

    def _require_equal(self, corpus: Reading, kept: float, label: str) -> None:
        again = corpus.log_perplexity
        assert again is not None, "the corpus loss always applies"
        allowed = _TOLERANCES[str(self._store.meta("study")["training"]["dtype"])]
        if not math.isclose(again, kept, rel_tol=allowed):
            raise VerificationError(
                f"{label}: the {self._split} loss is {again:.8g} now and was {kept:.8g} when the "
                f"run scored it, more than {allowed:g} apart: adapters, model, library or device "
                "have changed since, and an audit of other figures would say nothing about these"
            )


def _trials(folder: Path, store: Store) -> tuple[list[_Found], list[LeftOut]]:
    """Return the trials at the chosen rates whose adapters are there, and the others."""
    chosen = store.meta("chosen") or {}
    found: list[_Found] = []
    left_out: list[LeftOut] = []
    for placement in store.placements():
        rate = chosen.get(placement.name)
        own = _own(store, placement, rate)
        for trial in own:
            reason = _unusable(folder, trial, rate)
            if reason is None:
                found.append(_Found(placement.name, placement, trial))
            else:
                left_out.append(_left_out(placement.name, reason, trial))
        if not own:
            left_out.append(_left_out(placement.name, "no trial of it has ended yet"))
    if not found:
        raise RunFolderError(f"{folder}: no trial to audit{_why(left_out)}")
    return found, left_out


def _own(store: Store, placement: PlacementRecord, rate: float | None) -> list[TrialRecord]:
    """Return a placement's trials at its rate, all of them where it has none, seed by seed."""
    own = [t for t in store.trials().values() if t.placement_digest == placement.digest]
    at_rate = [trial for trial in own if rate is None or trial.learning_rate == rate]
    return sorted(at_rate, key=lambda trial: (trial.learning_rate, trial.seed))


def _unusable(folder: Path, trial: TrialRecord, rate: float | None) -> str | None:
    if trial.status != "done":
        told = trial.error or "it says nothing of why"
        return told if told.startswith(trial.status) else f"{trial.status}: {told}"
    if rate is None:
        return "no learning rate is chosen for its placement"
    return adapter_fault(folder, trial.adapter)


def _left_out(name: str, reason: str, trial: TrialRecord | None = None) -> LeftOut:
    if trial is None:
        return LeftOut(placement=name, learning_rate=None, seed=None, reason=reason)
    return LeftOut(
        placement=name, learning_rate=trial.learning_rate, seed=trial.seed, reason=reason
    )


def _why(left_out: Sequence[LeftOut]) -> str:
    if not left_out:
        return ": the run has only begun"
    first = left_out[0]
    which = first.placement if first.seed is None else f"{first.placement}, seed {first.seed}"
    more = f"; and {len(left_out) - 1} more" if len(left_out) > 1 else ""
    return f": {which}: {first.reason}{more}"


def _base(store: Store, study: Mapping[str, Any], asked: Asked) -> Base:
    """Load the base of a run, the same that its trials began from."""
    training = TrainingSpec(**study["training"])
    environment = store.meta("environment") or {}
    base = load_base(
        _model(study, asked),
        dtype=training.dtype,
        base_dropout=training.base_dropout,
        device=pick_device(environment.get("device", "auto")),
    )
    if base.task != "causal":
        raise NotYetError(
            f"{base.ref.name}: the audit knows the variants of causal language models; "
            f"this run's model is of another task, {base.task}"
        )
    kept = (store.meta("identity") or {}).get("base")
    if kept is not None and kept != base.digest:
        raise RunFolderError(
            f"{base.ref.name}: its weights or configuration are no longer those that the run was "
            "made with"
        )
    return base


def _model(study: Mapping[str, Any], asked: Asked) -> ModelRef:
    """Return the model of a run; its study trusted it, but a run folder may be somebody else's."""
    model = ModelRef(**study["model"])
    if model.trust_remote_code and not asked.trust_remote_code:
        raise ModelError(
            f"{model.name}: the run's study lets code that comes with the model run; "
            "--trust-remote-code lets it run here, too"
        )
    return model


def _rows(folder: Path, store: Store, study: dict[str, Any], base: Base, asked: Asked) -> AuditRows:
    roots = [asked.root] if asked.root is not None else list(_roots(folder))
    digest = (store.meta("identity") or {}).get("data_rows")
    return rows_of_run(study, base, roots, split=asked.split, digest=digest)


def _roots(folder: Path) -> Iterator[Path]:
    """Yield where the study file may have stood: the run keeps a copy, not its place."""
    yield Path.cwd()
    whole = folder.absolute()
    for parent in (whole, *whole.parents[:2]):
        yield parent
        yield parent / "studies"


def _setting(study: Mapping[str, Any], asked: Asked, base: Base) -> Setting:
    training = study["training"]
    setting = Setting(
        batch=asked.batch if asked.batch is not None else int(training["batch"]),
        window=asked.window if asked.window is not None else max_positions(base.model),
    )
    accumulation = int(training["accumulation"])
    return replace(setting, accumulation=accumulation if accumulation > 1 else _ACCUMULATION)


def _anatomy(model: ModelRef) -> Anatomy:
    return read_anatomy(
        model.name, revision=model.revision, trust_remote_code=model.trust_remote_code
    )


def _placement(record: PlacementRecord, study: Mapping[str, Any], anatomy: Anatomy) -> Placement:
    data = {"placement": record.adapters}
    return Placement.from_json(data, anatomy, scaling=study["lora"]["scaling"])
