"""How the trials of a run are carried out: pack by pack, what is done is left alone."""

from collections.abc import Callable, Mapping, Sequence

from loratlas.study.engines import ASKED_FOR, Engines
from loratlas.study.pack_runner import PackedTrial, Scores, run_pack
from loratlas.study.packs import Pack, packs_of
from loratlas.study.progress import Listener
from loratlas.study.records import TrialRecord
from loratlas.study.request import Request
from loratlas.study.safety import Safety, heed
from loratlas.study.store import Store
from loratlas.study.trial_runner import Bench, run_trial
from loratlas.study.trials import Cell, adapter_name, trial_spec
from loratlas.train.checkpoint import Keeper
from loratlas.train.packed.fit import ENGINE as PACKED
from loratlas.train.prefix import PrefixCache
from loratlas.train.reference import num_steps
from loratlas.train.trial import TrialSpec


class Training:
    """Runs the trials that are missing of a run; a failed one is tried again, once per run.

    Args:
        request: the study.
        store: where records go.
        bench: what trials share.
        engines: what they are trained with.
        prefix: keeps hidden states of the frozen base.
        listener: hears of it.
        tell: called with each new record.
        safety: keeps what is under way.
    """

    def __init__(
        self,
        *,
        request: Request,
        store: Store,
        bench: Bench,
        engines: Engines,
        prefix: PrefixCache,
        listener: Listener,
        tell: Callable[[TrialRecord], None],
        safety: Safety,
    ) -> None:
        self._request = request
        self._store = store
        self._bench = bench
        self._engines = engines
        self._prefix = prefix
        self._listener = listener
        self._tell = tell
        self._safety = safety
        self._explained: set[str] = set()

    def digests(self, cells: Sequence[Cell]) -> list[str]:
        """Return the identities of trials, each once."""
        return list(self._specs(cells))

    def run(self, cells: Sequence[Cell]) -> None:
        """Run the trials that are not there yet."""
        specs = self._specs(cells)
        reasons = {
            digest: self._engines.reasons[spec.placement_digest]
            for digest, (_, spec) in specs.items()
        }
        steps = num_steps(self._request.study.training, len(self._bench.train))
        known = self._store.trials()
        missing = [
            (pack, trials)
            for pack in packs_of(self._store, list(specs), reasons, self._engines.room)
            if (trials := [t for t in pack.trials if t in specs and _is_missing(known.get(t))])
        ]
        self._listener.advance((len(specs) - sum(len(trials) for _, trials in missing)) * steps)
        self._explain(missing, specs)
        for pack, trials in missing:
            heed(self._safety.stop)
            self._run_pack(pack, specs, trials)

    def _explain(
        self,
        missing: Sequence[tuple[Pack, Sequence[str]]],
        specs: Mapping[str, tuple[Cell, TrialSpec]],
    ) -> None:
        """Say once which placements the packed engine does not serve, and why."""
        names: dict[str, dict[str, None]] = {}
        for pack, trials in missing:
            if pack.reason is not None and pack.reason not in (ASKED_FOR, *self._explained):
                found = names.setdefault(pack.reason, {})
                found |= dict.fromkeys(specs[trial][0].placement.name for trial in trials)
        for reason, placements in names.items():
            self._listener.say(f"{', '.join(placements)}: trained one after another: {reason}")
        self._explained |= names.keys()

    def _specs(self, cells: Sequence[Cell]) -> dict[str, tuple[Cell, TrialSpec]]:
        """Return the trials by their identity; placements that are equal share theirs."""
        study, base = self._request.study, self._request.base.digest
        data = self._request.data.digest
        found: dict[str, tuple[Cell, TrialSpec]] = {}
        for cell in cells:
            spec = trial_spec(study, cell, base=base, data=data)
            found.setdefault(spec.digest, (cell, spec))
        return found

    def _run_pack(
        self,
        pack: Pack,
        specs: Mapping[str, tuple[Cell, TrialSpec]],
        missing: Sequence[str],
    ) -> None:
        given_up = self._safety.why_given_up(missing)
        claim = self._store.claim(missing, self._safety.owner)
        trials = [_trial(*specs[digest], claim.attempts[digest]) for digest in missing]
        keeper = self._keeper(pack, trials)
        if given_up is None:
            found = self._carried_out(pack, trials, keeper)
        else:
            found = [(self._failed(pack, trial, given_up), {}) for trial in trials]
        # Together or not at all: a pack that is repeated after a kill is repeated as it was.
        self._store.add_trials(
            [
                (record, trial.spec.to_json(), scores)
                for (record, scores), trial in zip(found, trials, strict=True)
            ],
            claim,
        )
        keeper.checkpoints.clear()
        for record, _ in found:
            self._tell(record)
            if record.status != "done":
                cell, _ = specs[record.digest]
                label = f"{cell.placement.name}, rate {cell.learning_rate:g}, seed {cell.seed}"
                self._listener.say(f"{label}: {record.error}")

    def _keeper(self, pack: Pack, trials: Sequence[PackedTrial]) -> Keeper:
        return self._safety.keeper(
            pack.number,
            [trial.spec.digest for trial in trials],
            {"engine": pack.engine, "environment": self._bench.environment},
        )

    def _failed(self, pack: Pack, trial: PackedTrial, error: str) -> TrialRecord:
        return TrialRecord(
            digest=trial.spec.digest,
            placement_digest=trial.spec.placement_digest,
            learning_rate=trial.spec.learning_rate,
            seed=trial.spec.seed,
            status="failed",
            error=error,
            engine=pack.engine,
            attempts=trial.attempts,
            environment=self._bench.environment,
        )

    def _carried_out(
        self, pack: Pack, trials: Sequence[PackedTrial], keeper: Keeper
    ) -> list[tuple[TrialRecord, Scores]]:
        """Train by the pack's engine; return what came out of each trial."""
        if pack.engine == PACKED:
            assert self._engines.packed is not None, "packs are of engines that serve"
            return run_pack(
                self._bench,
                self._engines.packed,
                self._prefix,
                pack,
                trials,
                on_step=_advancing(self._listener, len(trials)),
                keeper=keeper,
            )
        (trial,) = trials
        return [
            run_trial(
                self._bench,
                trial.spec,
                trial.placement,
                adapter=trial.adapter,
                attempts=trial.attempts,
                on_step=_advancing(self._listener, 1),
                keeper=keeper,
            )
        ]


def _advancing(listener: Listener, num_trials: int) -> Callable[[int, int], None]:
    """Return what tells of the steps of some trials; one that goes on begins beyond the first."""
    told = 0

    def on_step(done: int, _total: int) -> None:
        nonlocal told
        listener.advance((done - told) * num_trials)
        told = done

    return on_step


def _is_missing(record: TrialRecord | None) -> bool:
    return record is None or record.status == "failed"


def _trial(cell: Cell, spec: TrialSpec, attempt: int) -> PackedTrial:
    return PackedTrial(
        spec=spec,
        placement=cell.placement.placement,
        moving=cell.placement.moving,
        adapter=f"adapters/{adapter_name(cell, spec)}",
        attempts=attempt,
    )
