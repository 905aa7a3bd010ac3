"""What may a person say about how the sites of a study are scored? No torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from loratlas.study.groups import By
from loratlas.study.values import Match

BruteForce = Literal["add_one_in", "leave_one_out"]
BRUTE_FORCE: tuple[BruteForce, ...] = get_args(BruteForce)
TITLES: dict[BruteForce, str] = {
    "add_one_in": "what its group, adapted alone, takes from the validation loss of the base",
    "leave_one_out": "what the absence of its group adds to the validation loss of all groups",
}
UNIT = "nats per token of validation loss"
"""Of what brute force finds."""
TRIED = "a trial for each group, rate and seed, and validation rows forward for each"
"""What brute force costs."""

FEW_ROWS = 32
"""Rows that a method reads where nothing is said; of the published methods GoRA's script reads 32
batches (arXiv 2502.12171), PLoP's about 100 rows."""
RANKS_BEYOND = 4
"""Longest curve in ranks of the study: a quarter of the sites can then hold the whole budget."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoringOptions:
    """How sites are scored.

    Attributes:
        method: name of the scorer.
        rows: training rows that are read; None takes `FEW_ROWS`, or as many as there are, and all
            of them for a method that trains.
        batch: rows of one pass.
        sites: a rule for the sites in question.
        max_rank: longest curve; None takes `RANKS_BEYOND` times the study's rank.
        seed: of the choice of rows, and of everything that a method draws.
        options: of the method, by name.
    """

    method: str
    rows: int | None = None
    batch: int = 4
    sites: str = "all"
    max_rank: int | None = None
    seed: int = 0
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class BruteForceOptions:
    """How groups of sites are tried.

    Attributes:
        method: each group alone, or all but each.
        by: what a group is; see `study.groups`.
        sites: a rule for the sites in question.
        match: none leaves every site the study's rank; parameters brings each trial near to the
            count of the largest.
        seeds: None takes those of the study.
        learning_rate: rates; None takes those of the study, of which the validation rows choose.
    """

    method: BruteForce
    by: By = "role_quarter"
    sites: str = "all"
    match: Match = "none"
    seeds: tuple[int, ...] | None = None
    learning_rate: tuple[float, ...] | None = None
