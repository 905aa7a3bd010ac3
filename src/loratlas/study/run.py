"""How a study is carried out: what is missing is done, what is done is left alone.

Everything that can be wrong with the request is looked at before the run folder is touched.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from loratlas.anatomy.read import read
from loratlas.data.batches import PreparedData, prepare
from loratlas.errors import DataError, StudyError, TrialError
from loratlas.study.environment import environment
from loratlas.study.folder import check_folder, check_identity, open_folder
from loratlas.study.lock import only_controller
from loratlas.study.progress import Listener
from loratlas.study.records import BASE, PlacementRecord, TrialRecord
from loratlas.study.resolve import ResolvedPlacement, families, resolve_study
from loratlas.study.spec import StudySpec
from loratlas.study.store import Store
from loratlas.study.trial_runner import Bench, run_trial
from loratlas.study.trials import (
    Cell,
    Validated,
    at_chosen_rate,
    choose_learning_rate,
    num_trials,
    sweep,
    swept_seeds,
)
from loratlas.train.base import Base, load_base, load_tokenizer, max_positions, pick_device
from loratlas.train.probe import ProbeTask, probe
from loratlas.train.reference import num_steps
from loratlas.train.trial import TrialSpec

VALIDATION, TEST = "validation", "test"


@dataclass(frozen=True, kw_only=True)
class _Work:
    """Everything a run needs once the request has been found right."""

    study: StudySpec
    placements: Sequence[ResolvedPlacement]
    data: PreparedData
    base: Base
    store: Store
    bench: Bench
    listener: Listener


def run_study(study: StudySpec, folder: Path, listener: Listener) -> None:
    """Carry out what is missing of a study in a run folder.

    Raises:
        RequestError: the study does not fit its model or data, or the folder holds
            another study; nothing was written.
        StoreError: the store cannot be written.
    """
    check_folder(folder)
    listener.say(f"reading {study.model.name}")
    anatomy = read(
        study.model.name,
        revision=study.model.revision,
        trust_remote_code=study.model.trust_remote_code,
    )
    placements = resolve_study(study, anatomy)
    for line in warnings_of(placements):
        listener.say(line)
    device = pick_device(study.device)
    data = prepare(study.data, load_tokenizer(study.model), root=study.root)
    _require_splits(study, data)
    for line in data.report:
        listener.say(line)
    base = load_base(
        study.model,
        dtype=study.training.dtype,
        base_dropout=study.training.base_dropout,
        device=device,
    )
    _require_fit(study, data, base)
    identity = {**study.to_json(), "base": base.digest, "data_rows": data.digest}
    check_identity(folder, identity)
    folder.mkdir(parents=True, exist_ok=True)
    with only_controller(folder), _logged_to(folder / "run.log"):
        store = open_folder(folder, study, identity)
        try:
            _carry_out(_work(study, placements, data, base, store, folder, listener))
        finally:
            store.close()


def warnings_of(placements: Iterable[ResolvedPlacement]) -> list[str]:
    """Return one line per warning, the placement's name before it."""
    return [
        f"{placement.name}: {lint.code}: {lint.message}"
        for placement in placements
        for lint in placement.lints
    ]


def _work(
    study: StudySpec,
    placements: Sequence[ResolvedPlacement],
    data: PreparedData,
    base: Base,
    store: Store,
    folder: Path,
    listener: Listener,
) -> _Work:
    splits = {VALIDATION: data.validation, TEST: data.test}
    bench = Bench(
        base=base,
        train=data.train.rows,
        scored={name: split.rows for name, split in splits.items() if split.rows},
        folder=folder,
        environment=environment(base.device),
    )
    return _Work(
        study=study,
        placements=placements,
        data=data,
        base=base,
        store=store,
        bench=bench,
        listener=listener,
    )


def _carry_out(work: _Work) -> None:
    _keep_setting(work)
    _score_base(work)
    _probe_placements(work)
    work.listener.begin(
        "training", num_trials(work.study) * num_steps(work.study.training, len(work.bench.train))
    )
    _run_cells(work, sweep(work.study, work.placements))
    chosen = chosen_rates(work.study, work.placements, work.store)
    _run_cells(work, at_chosen_rate(work.study, work.placements, chosen))
    work.store.set_meta("chosen", chosen)
    work.listener.end()


def _keep_setting(work: _Work) -> None:
    """Keep what the trials' figures are to be read with."""
    store, data = work.store, work.data
    store.set_placements([_placement_record(placement) for placement in work.placements])
    store.set_meta("study", work.study.to_json())
    store.set_meta("name", work.study.name)
    store.set_meta("num_trials", num_trials(work.study))
    store.set_meta("steps_per_trial", num_steps(work.study.training, len(data.train.rows)))
    store.set_meta("base_parameters", work.base.num_parameters)
    store.set_meta("environment", work.bench.environment)
    store.set_meta("data_report", list(data.report))
    store.set_meta(
        "rows",
        {
            "train": len(data.train.rows),
            VALIDATION: len(data.validation.rows),
            TEST: len(data.test.rows),
        },
    )


def _score_base(work: _Work) -> None:
    if work.store.scores(BASE).keys() >= work.bench.scored.keys():
        return
    work.listener.say("scoring the untuned base")
    work.store.set_base_scores(work.bench.score(work.base.model))


def _probe_placements(work: _Work) -> None:
    known = work.store.probes()
    missing = {p.placement.digest: p for p in work.placements if p.placement.digest not in known}
    if not missing:
        return
    work.listener.begin("probing each placement alone", len(missing))
    for digest, placement in missing.items():
        task = ProbeTask(
            model=work.study.model,
            device=work.base.device.type,
            placement=placement.placement,
            rows=work.bench.train,
            training=work.study.training,
            lora_dropout=work.study.lora.dropout,
            num_threads=torch.get_num_threads(),
        )
        try:
            work.store.set_probe(digest, probe(task))
        except TrialError as error:
            work.listener.say(f"{placement.name}: the probe failed: {error}")
        work.listener.advance()
    work.listener.end()


def _run_cells(work: _Work, cells: Sequence[Cell]) -> None:
    """Run the trials that are not there yet; a failed one is tried again, once per run."""
    known = work.store.trials()
    steps = num_steps(work.study.training, len(work.bench.train))
    for cell in cells:
        spec = trial_spec(work.study, cell, base=work.base.digest, data=work.data.digest)
        earlier = known.get(spec.digest)
        if earlier is not None and earlier.status != "failed":
            work.listener.advance(steps)
            continue
        known[spec.digest] = _run_cell(work, cell, spec, earlier)


def _run_cell(work: _Work, cell: Cell, spec: TrialSpec, earlier: TrialRecord | None) -> TrialRecord:
    label = f"{cell.placement.name}, rate {cell.learning_rate:g}, seed {cell.seed}"
    record, scores = run_trial(
        work.bench,
        spec,
        cell.placement.placement,
        adapter=f"adapters/{adapter_name(cell, spec)}",
        attempts=1 if earlier is None else earlier.attempts + 1,
        on_step=lambda _done, _total: work.listener.advance(),
    )
    work.store.add_trial(record, spec.to_json(), scores)
    if record.status != "done":
        work.listener.say(f"{label}: {record.error}")
    return record


def trial_spec(study: StudySpec, cell: Cell, *, base: str, data: str) -> TrialSpec:
    """Return the specification that identifies a trial of a study."""
    return TrialSpec(
        base_digest=base,
        data_digest=data,
        placement_digest=cell.placement.placement.digest,
        learning_rate=cell.learning_rate,
        seed=cell.seed,
        lora_dropout=study.lora.dropout,
        training=replace(study.training, learning_rate=()),
    )


def adapter_name(cell: Cell, spec: TrialSpec) -> str:
    """Return a folder name that a person can read and that no two trials share."""
    return (
        f"{_safe(cell.placement.name)}-lr{cell.learning_rate:g}-seed{cell.seed}-{spec.digest[:8]}"
    )


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
            if t.placement_digest == placement.placement.digest and t.seed in seeds
        ]
        chosen[placement.name] = choose_learning_rate(validated)
    return chosen


def _placement_record(resolved: ResolvedPlacement) -> PlacementRecord:
    placement = resolved.placement
    return PlacementRecord(
        name=resolved.name,
        digest=placement.digest,
        rule=str(resolved.rule),
        trainable_parameters=placement.trainable_parameters,
        matched_to=resolved.matched_to,
        families=families(placement),
        adapters=placement.to_json()["placement"],
        warnings=[{"code": lint.code, "message": lint.message} for lint in resolved.lints],
    )


def _require_splits(study: StudySpec, data: PreparedData) -> None:
    if not data.test.rows:
        raise StudyError(f"{study.path}: data.test: no test rows; the answer is read from them")
    if len(study.training.learning_rate) > 1 and not data.validation.rows:
        raise StudyError(
            f"{study.path}: data.validation: several learning rates need validation rows "
            "to choose between them, and there are none"
        )


def _require_fit(study: StudySpec, data: PreparedData, base: Base) -> None:
    """Refuse rows that the base cannot read: too long, or of another vocabulary."""
    rows = [row for split in (data.train, data.validation, data.test) for row in split.rows]
    longest = max(len(row.ids) for row in rows)
    limit = max_positions(base.model)
    if limit is not None and longest > limit:
        raise StudyError(
            f"{study.path}: data.max_length: {study.data.max_length} lets rows of {longest} tokens "
            f"through, and {study.model.name} reads at most {limit}"
        )
    largest = max(int(row.ids.max()) for row in rows)
    vocabulary = base.model.get_input_embeddings().num_embeddings
    if largest >= vocabulary:
        raise DataError(
            f"{study.model.name}: its tokenizer gives token {largest}, but its vocabulary has "
            f"{vocabulary:,} entries: tokenizer and model do not belong together"
        )


def _safe(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in name)


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
