"""What is a placement that moves, before and after its trial?"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from loratlas.anatomy.sites import digest_of
from loratlas.dynamic.spec import PolicySpec, build, capacities
from loratlas.placement.placement import Placement
from loratlas.study.records import TrialRecord

if TYPE_CHECKING:
    from loratlas.train.policy import Policy


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What a policy is told of the base before any trial.

    Attributes:
        priors: what it weighs sites with, by path.
        entropies: mean normalised entropy of attention, by stack and layer.
        seconds: what the reading took.
    """

    priors: Mapping[str, float]
    entropies: Mapping[str, float]
    seconds: float


_READ = tuple(field.name for field in fields(Reading))


@dataclass(frozen=True, kw_only=True, slots=True)
class Moving:
    """A placement that a policy moves while it is trained.

    Attributes:
        spec: the policy.
        start: where a trial begins.
        target: most adapter parameters in the end.
        reading: what was read of the base before any trial; None until it is, and for a policy that
            needs nothing.
    """

    spec: PolicySpec
    start: Placement
    target: int
    reading: Reading | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of all that decides how it moves; what is read follows from base and rows."""
        return digest_of(
            {"start": self.start.digest, "policy": self.spec.to_json(), "target": self.target}
        )

    @property
    def capacity(self) -> dict[str, int]:
        """Most columns of each site, by path."""
        return capacities(self.spec, self.start)

    def policy(self, total_steps: int) -> "Policy":
        """Return what moves one trial of so many optimiser steps."""
        return build(
            self.spec,
            placement=self.start,
            target_parameters=self.target,
            total_steps=total_steps,
            priors=None if self.reading is None else self.reading.priors,
        )

    def to_json(self) -> dict[str, Any]:
        """Return what a person should know of it, as plain data."""
        return {
            "kind": "dynamic",
            **self.spec.to_json(),
            "title": self.spec.title,
            "notes": list(self.spec.notes),
            "start_parameters": self.start.trainable_parameters,
            "target_parameters": self.target,
            **(dict.fromkeys(_READ) if self.reading is None else asdict(self.reading)),
        }


def placement_of(trial: TrialRecord, placement: Placement) -> Placement:
    """Return where the saved adapters of a trial are: where it ended, if its placement moved.

    Args:
        trial: the trial.
        placement: what was resolved for it before it was trained.
    """
    if trial.final is None:
        return placement
    return Placement.from_json(
        {"placement": trial.final}, placement.anatomy, scaling=placement.scaling
    )
