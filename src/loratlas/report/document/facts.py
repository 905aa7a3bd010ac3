"""What does a run folder hold that a report can be written from?"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from loratlas.analysis.arms import Arms, arms_of
from loratlas.analysis.costs import Cost, costs_of
from loratlas.analysis.groups import By
from loratlas.analysis.importance import Importance, importance
from loratlas.analysis.moved import Moved, is_moving, moved
from loratlas.analysis.pareto import Frontier, frontier
from loratlas.analysis.quality import finite
from loratlas.analysis.recommend import PRESETS, recommend
from loratlas.analysis.summary import results
from loratlas.analysis.verdicts import MARGIN
from loratlas.anatomy.sites import Anatomy
from loratlas.report.document.audit_file import AuditFile, read_audit
from loratlas.report.recommendations import recommendation, unfinished
from loratlas.study.records import PlacementRecord, TrialRecord
from loratlas.study.standing import standing
from loratlas.study.store import Store

Plain = Mapping[str, Any]

_SETTING = ("identity", "rows", "task", "classes", "base_parameters", "steps_per_trial",
            "data_report", "environment")  # fmt: skip

_COSTS = ("parameters", "memory", "time", "adapter_bytes")


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A trial with the name of its placement and what it scored.

    Attributes:
        placement: name in the study; the first, where several are the same.
        record: how it went.
        at_chosen_rate: whether the placement's figures rest on it.
        loss: corpus loss by split, nats per token; None where it was not scored.
        accuracy: of the test rows.
    """

    placement: str
    record: TrialRecord
    at_chosen_rate: bool
    loss: Mapping[str, float | None]
    accuracy: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """Everything that a report says.

    Attributes:
        results: what `loratlas.analysis.summary.results` returns.
        standing: what `loratlas.study.standing.standing` returns.
        study: the study as it was stored.
        setting: what was kept beside it: rows, digests, environment.
        placements: as they were resolved, in the order of the study.
        trials: those that the study asks for, by placement, rate and seed.
        anatomy: the model's sites; None in a run that did not keep them.
        study_text: the study file; None where it is missing.
        audit: ``audit.json`` of the run folder.
        frontiers: of loss against each cost, by its name in `loratlas.analysis.pareto`.
        importance: of roles and of layers; empty where the model's sites are not known.
        moved: how placements moved that a policy moves.
        recommended: what ``loratlas recommend`` says with each preset and no budget.
    """

    results: Plain
    standing: Plain
    study: Plain
    setting: Plain
    placements: Sequence[PlacementRecord]
    trials: Sequence[Trial]
    anatomy: Anatomy | None
    study_text: str | None
    audit: AuditFile
    frontiers: Mapping[str, Frontier]
    importance: Mapping[By, Importance]
    moved: list[Moved]
    recommended: Mapping[str, Plain]

    @property
    def name(self) -> str:
        """The study's name."""
        return str(self.results["study"])

    @property
    def names(self) -> list[str]:
        """The placements in the order of the study."""
        return list(self.results["placements"])

    @property
    def baseline(self) -> str | None:
        """The placement that the others are held against."""
        return self.study.get("baseline")


def gather(run: Path, store: Store) -> Facts:
    """Read a run folder.

    Args:
        run: the folder.
        store: its store.
    """
    kept = store.meta("anatomy")
    anatomy = None if kept is None else Anatomy.from_json(kept)
    arms, costs = arms_of(store), costs_of(store)
    return Facts(
        results=results(store),
        standing=standing(store),
        study=store.meta("study") or {},
        setting={key: store.meta(key) for key in _SETTING},
        placements=store.placements(),
        trials=list(_trials(store)),
        anatomy=anatomy,
        study_text=_read(run / "study.yaml"),
        audit=read_audit(run / "audit.json", store.meta("name")),
        frontiers={cost: frontier(arms, costs, ("loss", cost)) for cost in _COSTS},
        importance={} if anatomy is None else _importance(store, arms, anatomy),
        moved=moved(store),
        recommended=_recommended(store, arms, costs),
    )


def _importance(store: Store, arms: Arms, anatomy: Anatomy) -> dict[By, Importance]:
    """Return what sites are worth, by placements that stand still: only theirs are known."""
    ranks = {
        record.name: {adapter["path"]: adapter["rank"] for adapter in record.adapters}
        for record in store.placements()
        if not is_moving(record)
    }
    return {by: importance(arms, ranks, anatomy.by_path, by) for by in get_args(By)}


def _recommended(store: Store, arms: Arms, costs: Mapping[str, Cost]) -> dict[str, Plain]:
    margin, todo = (store.meta("study") or {}).get("margin", MARGIN), unfinished(standing(store))
    found = [recommend(arms, costs, preset=preset, margin=margin) for preset in PRESETS]
    return {each.preset: recommendation(each, store.meta("name"), todo) for each in found}


def _trials(store: Store) -> Iterator[Trial]:
    chosen, wanted = store.meta("chosen") or {}, store.meta("wanted")
    names: dict[str, str] = {}
    for placement in store.placements():
        names.setdefault(placement.digest, placement.name)
    known = store.trials()
    asked = [
        record
        for digest, record in known.items()
        if record.placement_digest in names and (wanted is None or digest in wanted)
    ]
    order = list(names)
    asked.sort(key=lambda each: (order.index(each.placement_digest), each.learning_rate, each.seed))
    for record in asked:
        name = names[record.placement_digest]
        scores = store.scores(record.digest)
        test = scores.get("test")
        yield Trial(
            placement=name,
            record=record,
            at_chosen_rate=chosen.get(name) == record.learning_rate,
            loss={split: finite(score.loss) for split, score in scores.items()},
            accuracy=None if test is None else finite(test.accuracy),
        )


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
