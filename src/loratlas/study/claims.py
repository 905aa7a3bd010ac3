"""Who works on which trial, and for the how manyeth time?

A claim is a lease without a clock: it holds until somebody else claims the same trials, which only
happens when its owner is known to be gone. What a late owner brings is then refused, so that an
attempt that was given up can never write over the one that took its place.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy.orm import Session

from loratlas.errors import StaleClaimError
from loratlas.study import tables

_KEY = "claims"

Entry = tuple[int, str | None]
"""Number of the newest attempt at a trial, and its owner; None once it has ended."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """Somebody's right to store what comes out of some trials.

    Attributes:
        owner: who works on them.
        attempts: by the trial's digest, which attempt this is, from 1.
    """

    owner: str
    attempts: Mapping[str, int]


def next_claim(kept: Mapping[str, Entry], trials: Iterable[str], owner: str) -> Claim:
    """Return a claim to trials that comes after all earlier ones."""
    first: Entry = (0, None)
    return Claim(owner=owner, attempts={t: kept.get(t, first)[0] + 1 for t in trials})


def entries(claim: Claim) -> dict[str, Entry]:
    """Return what is kept of a claim while its work goes on."""
    return {trial: (attempt, claim.owner) for trial, attempt in claim.attempts.items()}


def ended(claim: Claim) -> dict[str, Entry]:
    """Return what is kept of a claim once its work is stored."""
    return {trial: (attempt, None) for trial, attempt in claim.attempts.items()}


def under_way(kept: Mapping[str, Entry], owner: str) -> list[str]:
    """Return the trials that an owner has begun and nobody has ended."""
    return [trial for trial, (_, whose) in kept.items() if whose == owner]


def require_current(kept: Mapping[str, Entry], claim: Claim) -> None:
    """Refuse a claim that another one has taken the place of.

    Raises:
        StaleClaimError: it is late.
    """
    for trial, entry in entries(claim).items():
        if kept.get(trial) != entry:
            raise StaleClaimError(
                f"trial {trial}: attempt {claim.attempts[trial]} by {claim.owner} arrives late; "
                "it was begun again meanwhile, and what this attempt gave is not kept"
            )


def kept(session: Session) -> dict[str, Entry]:
    """Return the newest claim to each trial."""
    found = session.get(tables.Meta, _KEY)
    entries = {} if found is None else found.value["value"]
    return {trial: (attempt, owner) for trial, (attempt, owner) in entries.items()}


def keep(session: Session, claims: Mapping[str, Entry]) -> None:
    """Keep claims."""
    session.merge(tables.Meta(key=_KEY, value={"value": dict(claims)}))
