"""Where adapters go: a rule resolved against a model, as exact sites, ranks and alphas."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from loratlas.anatomy.grid import grid
from loratlas.anatomy.sites import Anatomy, Site, digest_of
from loratlas.errors import PlacementError, did_you_mean
from loratlas.placement.resolve import Resolver, ranks_of
from loratlas.placement.rules import Source, parse
from loratlas.placement.saved import read_adapters

if TYPE_CHECKING:
    from peft import LoraConfig

Scaling = Literal["constant", "alpha/r", "rslora"]
SCALINGS: tuple[str, ...] = get_args(Scaling)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraSpec:
    """What a study says about its adapters, apart from where they go.

    Attributes:
        rank: rank of every site whose part of a rule states none.
        alpha: LoRA's alpha at that rank.
        scaling: ``constant`` keeps the scale alpha / rank of this spec at every site whatever
            the rank of the site; ``alpha/r`` keeps alpha, so that the scale is alpha over the
            rank of the site; ``rslora`` keeps alpha, with the scale alpha over the square root
            of the rank of the site (arXiv 2312.03732).
        dropout: dropout on the input of every adapter.
    """

    rank: int = 8
    alpha: float = 16
    scaling: Scaling = "constant"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 1:
            raise PlacementError(f"rank is a positive integer, not {self.rank!r}")
        if not self.alpha > 0:
            raise PlacementError(f"alpha is positive, not {self.alpha!r}")
        if not isfinite(self.alpha):
            raise PlacementError(f"alpha is a finite number, not {self.alpha!r}")
        if self.scaling not in SCALINGS:
            raise PlacementError(
                f"unknown scaling {self.scaling!r}{did_you_mean(str(self.scaling), SCALINGS)}; "
                f"it is one of {', '.join(SCALINGS)}"
            )
        if not 0 <= self.dropout < 1:
            raise PlacementError(f"dropout is at least 0 and below 1, not {self.dropout!r}")

    def alpha_at(self, rank: int) -> float:
        """Return the alpha of a site with this rank."""
        return self.alpha * rank / self.rank if self.scaling == "constant" else self.alpha


@dataclass(frozen=True, kw_only=True, slots=True)
class Adapter:
    """One adapter: its site, its rank, and the alpha that PEFT gets for this site."""

    site: Site
    rank: int
    alpha: float

    @property
    def num_parameters(self) -> int:
        """Trainable parameters of the adapter: rank * (d_in + d_out), for each expert."""
        return self.rank * self.site.parameters_per_rank

    def to_json(self) -> dict[str, Any]:
        """Return path, rank and alpha as plain data."""
        return {"path": self.site.path, "rank": self.rank, "alpha": float(self.alpha)}


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacementDiff:
    """How two placements differ: adapters of one only, and sites whose rank or alpha differ."""

    only_left: tuple[Adapter, ...]
    only_right: tuple[Adapter, ...]
    changed: tuple[tuple[Adapter, Adapter], ...]

    def __bool__(self) -> bool:
        return bool(self.only_left or self.only_right or self.changed)

    def to_json(self) -> dict[str, Any]:
        """Return the difference as plain data."""
        return {
            "only_left": [adapter.to_json() for adapter in self.only_left],
            "only_right": [adapter.to_json() for adapter in self.only_right],
            "changed": [
                {"path": left.site.path, "left": _strength(left), "right": _strength(right)}
                for left, right in self.changed
            ],
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """Adapters of one model, in the order in which the model holds its sites.

    Attributes:
        anatomy: the model; not part of equality, which is over adapters and scaling.
        adapters: at most one for each site; put into the model's order.
        scaling: how the scale of an adapter follows from its alpha and rank.
    """

    anatomy: Anatomy = field(repr=False, compare=False)
    adapters: tuple[Adapter, ...]
    scaling: Scaling

    def __post_init__(self) -> None:
        order = {path: number for number, path in enumerate(self.anatomy.by_path)}
        paths = [adapter.site.path for adapter in self.adapters]
        for path in paths:
            if path not in order:
                raise PlacementError(
                    f"{self.anatomy.model} has no site {path}{did_you_mean(path, order)}"
                )
        if len(set(paths)) < len(paths):
            raise PlacementError(f"{_twice(paths)} has two adapters; a site takes one")
        ordered = tuple(sorted(self.adapters, key=lambda adapter: order[adapter.site.path]))
        object.__setattr__(self, "adapters", ordered)

    @property
    def trainable_parameters(self) -> int:
        """Trainable parameters of all adapters."""
        return sum(adapter.num_parameters for adapter in self.adapters)

    @property
    def by_path(self) -> Mapping[str, Adapter]:
        """The adapters by the path of their site."""
        return {adapter.site.path: adapter for adapter in self.adapters}

    def scale(self, adapter: Adapter) -> float:
        """Return the factor on B A x: alpha / rank, or alpha / sqrt(rank) for rslora."""
        rank = sqrt(adapter.rank) if self.scaling == "rslora" else adapter.rank
        return adapter.alpha / rank

    def with_ranks(self, ranks: Mapping[str, int]) -> Self:
        """Return some of the sites with other ranks, the scale of each as it was.

        Args:
            ranks: by path; a site without one is left out.
        """
        return self._with(
            replace(adapter, rank=rank, alpha=self._alpha_at(adapter, rank))
            for adapter in self.adapters
            if (rank := ranks.get(adapter.site.path)) is not None
        )

    @property
    def digest(self) -> str:
        """SHA-256 over path, rank, alpha and rslora of every adapter; names do not enter."""
        rows = sorted((a.site.path, a.rank, float(a.alpha)) for a in self.adapters)
        return digest_of({"adapters": rows, "rslora": self.scaling == "rslora"})

    def to_json(self) -> dict[str, Any]:
        """Return the placement as plain data, as `from_json` and ``file(...)`` read it."""
        return {
            "placement": [adapter.to_json() for adapter in self.adapters],
            "trainable_parameters": self.trainable_parameters,
        }

    @classmethod
    def from_json(
        cls, data: Mapping[str, Any], anatomy: Anatomy, *, scaling: Scaling = "constant"
    ) -> Self:
        """Read what `to_json` wrote, ranks and alphas as they stand there.

        Args:
            data: the plain data.
            anatomy: the model whose sites the data name.
            scaling: the plain data do not hold it; ``rslora`` changes what an alpha means.

        Raises:
            PlacementError: the data have another form, or name a site that is not there.
        """
        saved = read_adapters(data, where="the saved placement", anatomy=anatomy)
        adapters = tuple(
            Adapter(site=anatomy.by_path[path], rank=adapter.rank, alpha=adapter.alpha)
            for path, adapter in saved.items()
        )
        return cls(anatomy=anatomy, adapters=adapters, scaling=scaling)

    def to_peft(self, dropout: float = 0.0) -> "LoraConfig":
        """Return PEFT's configuration with exact paths, ranks and scales."""
        # Imported here because peft imports torch, which a placement does without.
        from loratlas.placement.peft_config import to_peft

        return to_peft(self, dropout=dropout)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: ranks by layer and role, a dot where none is."""
        ranks = {adapter.site.path: adapter.rank for adapter in self.adapters}

        def shown(sites: Sequence[Site]) -> str:
            counts = Counter(str(ranks.get(site.path, "·")) for site in sites)
            return ", ".join(f"{rank} ({n})" if n > 1 else rank for rank, n in counts.items())

        title = (
            f"{self.anatomy.model}: {len(self.adapters)} of {len(self.anatomy.sites)} sites, "
            f"{self.trainable_parameters:,} trainable parameters; ranks"
        )
        return grid(title, self.anatomy.sites, shown)

    def __or__(self, other: Self) -> Self:
        """The sites of either; a site of both must have the same rank and alpha there."""
        self._check_same(other)
        return self._with({**self.by_path, **other.by_path}.values())

    def __and__(self, other: Self) -> Self:
        """The sites of both, which must have the same rank and alpha there."""
        self._check_same(other)
        theirs = other.by_path
        return self._with(a for a in self.adapters if a.site.path in theirs)

    def __sub__(self, other: Self) -> Self:
        """The sites of this placement that are not in the other, whatever the ranks."""
        self._check_model(other)
        theirs = other.by_path
        return self._with(a for a in self.adapters if a.site.path not in theirs)

    def diff(self, other: Self) -> PlacementDiff:
        """Return what differs between this placement (left) and another (right)."""
        self._check_model(other)
        mine, theirs = self.by_path, other.by_path
        # Under rslora an alpha means another scale, so that equal ranks and alphas differ.
        another_scale = (self.scaling == "rslora") != (other.scaling == "rslora")
        return PlacementDiff(
            only_left=tuple(a for a in self.adapters if a.site.path not in theirs),
            only_right=tuple(a for a in other.adapters if a.site.path not in mine),
            changed=tuple(
                (a, theirs[a.site.path])
                for a in self.adapters
                if a.site.path in theirs and (another_scale or a != theirs[a.site.path])
            ),
        )

    def _alpha_at(self, adapter: Adapter, rank: int) -> float:
        """Return the alpha that gives a rank the scale that an adapter has."""
        ratio = rank / adapter.rank
        return adapter.alpha * (ratio**0.5 if self.scaling == "rslora" else ratio)

    def _with(self, adapters: Iterable[Adapter]) -> Self:
        return type(self)(anatomy=self.anatomy, adapters=tuple(adapters), scaling=self.scaling)

    def _check_model(self, other: Self) -> None:
        mine, theirs = self.anatomy, other.anatomy
        if mine is not theirs and mine.digest != theirs.digest:
            raise PlacementError(
                f"placements of different models do not mix: {mine.model} and {theirs.model}"
            )

    def _check_same(self, other: Self) -> None:
        if self.scaling != other.scaling:
            raise PlacementError(
                f"placements of different scaling do not mix: {self.scaling} and {other.scaling}"
            )
        changed = self.diff(other).changed
        if changed:
            left, right = changed[0]
            raise PlacementError(
                f"{len(changed)} sites differ in rank or alpha, first {left.site.path}: "
                f"rank {left.rank}, alpha {left.alpha:g} and rank {right.rank}, "
                f"alpha {right.alpha:g}"
            )


def place(
    anatomy: Anatomy,
    rule: Source,
    *,
    rank: int = 8,
    alpha: float = 16,
    scaling: Scaling = "constant",
    root: Path | None = None,
) -> Placement:
    """Resolve a rule against a model.

    Args:
        anatomy: the model.
        rule: the rule, as text, in its YAML form, or already read.
        rank: rank of every part that states none. A site that such a part takes from a
            ``file(...)`` keeps the rank that the file gives it.
        alpha: alpha at `rank`; see `LoraSpec` for the alpha of a site with another rank.
        scaling: how the scale follows the rank.
        root: the folder that relative paths in ``file(...)`` start from; None is the current one.

    Raises:
        RuleError: the rule cannot be read.
        PlacementError: the rule does not fit the model: it selects nothing, its parts overlap,
            or it names a layer, a stack, a module or a file that is not there.
    """
    lora = LoraSpec(rank=rank, alpha=alpha, scaling=scaling)
    resolver = Resolver(anatomy=anatomy, root=root or Path())
    ranks = ranks_of(parse(rule), resolver, rank)
    adapters = tuple(
        Adapter(site=anatomy.by_path[path], rank=at, alpha=lora.alpha_at(at))
        for path, at in ranks.items()
    )
    return Placement(anatomy=anatomy, adapters=adapters, scaling=scaling)


def _strength(adapter: Adapter) -> dict[str, float]:
    return {"rank": adapter.rank, "alpha": float(adapter.alpha)}


def _twice(paths: list[str]) -> str:
    return next(path for path in paths if paths.count(path) > 1)
