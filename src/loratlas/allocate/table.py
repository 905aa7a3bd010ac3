"""What did a scorer say of each site, and what did it take to say so?

Plain data, no torch: scores are kept as JSON, and allocators read them without a model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self, get_args

Granularity = Literal["site", "type", "layer", "group"]
GRANULARITIES: tuple[str, ...] = get_args(Granularity)


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteScore:
    """What one site is worth.

    Attributes:
        path: of the site.
        value: in the unit of the table.
        stderr: standard error of `value` over rows; None where the method has none.
        curve: marginal value of each rank, from the first on; None where the method gives one
            value alone.
        num_tokens: tokens that the value was taken from; None where the method reads no rows.
        expert_tokens: tokens that each expert of the site was sent; None where they were not
            counted, and for a site of one map.
        slices: values of the parts of a fused output, such as q, k and v, by part.
        group: name of the group whose value this is; None where sites were not tried in groups.
    """

    path: str
    value: float
    stderr: float | None = None
    curve: tuple[float, ...] | None = None
    num_tokens: int | None = None
    expert_tokens: tuple[int, ...] | None = None
    slices: Mapping[str, float] | None = None
    group: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the score as plain data."""
        data = asdict(self)
        for key in ("curve", "expert_tokens"):
            data[key] = None if data[key] is None else list(data[key])
        data["slices"] = None if self.slices is None else dict(self.slices)
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote; what is not there is None."""
        curve, counts = data.get("curve"), data.get("expert_tokens")
        return cls(
            path=data["path"],
            value=data["value"],
            stderr=data.get("stderr"),
            curve=None if curve is None else tuple(curve),
            num_tokens=data.get("num_tokens"),
            expert_tokens=None if counts is None else tuple(counts),
            slices=data.get("slices"),
            group=data.get("group"),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoringCost:
    """What it took to score.

    Attributes:
        num_forwards: rows that went forward through the model.
        num_backwards: rows that went backward.
        seconds: wall time, the model already loaded.
        peak_memory_bytes: most memory above what was held before; None where it cannot be read.
    """

    num_forwards: int = 0
    num_backwards: int = 0
    seconds: float | None = None
    peak_memory_bytes: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreTable:
    """Scores of the sites of one model by one method.

    Attributes:
        method: name of the scorer.
        unit: of every value.
        higher_is_better: whether sites with a larger value should be adapted first.
        granularity: whether sites have values of their own, or share those of a type, a layer or
            a group.
        model: name that the model was read by.
        anatomy_digest: of the anatomy that the paths belong to.
        cost: what it took.
        scores: of every site that was asked for, in the order of the model.
        agreement: rank agreement (Kendall's τ) of the values from each half of the rows; None
            where the method reads no rows.
        uninformative: why the scores say nothing, in sentences; empty where nothing shows that.
        notes: what a person should know of these scores, the verdict among it.
    """

    method: str
    unit: str
    higher_is_better: bool
    granularity: Granularity = "site"
    model: str
    anatomy_digest: str
    cost: ScoringCost
    scores: tuple[SiteScore, ...]
    agreement: float | None = None
    uninformative: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What else the scores depend on: rows, seed, options of the method."""

    @property
    def by_path(self) -> Mapping[str, SiteScore]:
        """The scores by the path of their site."""
        return {score.path: score for score in self.scores}

    def to_json(self) -> dict[str, Any]:
        """Return the table as plain data, as the ``score`` command prints it."""
        return {
            "method": self.method,
            "unit": self.unit,
            "higher_is_better": self.higher_is_better,
            "granularity": self.granularity,
            "model": self.model,
            "anatomy_digest": self.anatomy_digest,
            "cost": asdict(self.cost),
            "agreement": self.agreement,
            "uninformative": list(self.uninformative),
            "notes": list(self.notes),
            "settings": dict(self.settings),
            "scores": [score.to_json() for score in self.scores],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        scores: Sequence[Mapping[str, Any]] = data["scores"]
        return cls(
            method=data["method"],
            unit=data["unit"],
            higher_is_better=data["higher_is_better"],
            granularity=data.get("granularity", "site"),
            model=data["model"],
            anatomy_digest=data["anatomy_digest"],
            cost=ScoringCost(**data["cost"]),
            agreement=data.get("agreement"),
            uninformative=tuple(data.get("uninformative", ())),
            notes=tuple(data.get("notes", ())),
            settings=data.get("settings", {}),
            scores=tuple(map(SiteScore.from_json, scores)),
        )
