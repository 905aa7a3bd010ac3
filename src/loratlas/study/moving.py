"""What is a placement that moves, before and after its trial?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loratlas.anatomy.sites import digest_of
from loratlas.dynamic.spec import PolicySpec, build, capacities
from loratlas.placement.placement import Placement
from loratlas.study.records import TrialRecord

if TYPE_CHECKING:
    from loratlas.train.policy import Policy


@dataclass(frozen=True, kw_only=True, slots=True)
class Moving:
    """A placement that a policy moves while it is trained.

    Attributes:
        spec: the policy.
        start: where a trial begins.
        target: most adapter parameters in the end.
        priors: what the policy weighs sites with, by path; None until they are taken, and for a
            policy that takes none.
    """

    spec: PolicySpec
    start: Placement
    target: int
    priors: Mapping[str, float] | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of all that decides how it moves; priors follow from base and rows."""
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
            priors=self.priors,
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
            "priors": None if self.priors is None else dict(self.priors),
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
