"""Which keys may a person write for a placement that is learned: by scores, or while it trains?"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from loratlas.allocate.allocation import Solver
from loratlas.allocate.constraints import Constraints
from loratlas.dynamic.spec import PolicySpec
from loratlas.errors import RequestError
from loratlas.score.names import require_known
from loratlas.study import values
from loratlas.study.learned import HybridSpec
from loratlas.study.scoring_options import ScoringOptions
from loratlas.study.sections import Fields

_LEFT_OUT: Any = None
"""Default of a key that has no value of its own; a null in the file is refused there."""


class HybridFields(Fields):
    """A placement whose ranks follow from scores: {scorer: gradient}."""

    scorer: values.Text
    """How sites are scored; `loratlas score --help` lists the methods."""
    sites: values.Rule = "all"
    """A rule for the sites to choose from."""
    budget: values.Count = _LEFT_OUT
    """Most adapter parameters; without it, the baseline's count at the study's rank."""
    rows: values.Rows = _LEFT_OUT
    """Training rows that are read; without it 32, and all of them for a method that trains."""
    min_rank: values.RankOrZero = _LEFT_OUT
    """Lowest rank of a site; without it 0, which leaves a site out."""
    max_rank: values.Rank = _LEFT_OUT
    """Highest rank of a site; without it four times the rank under `lora`."""
    solver: Solver = "exact"
    """exact: the best division of the budget; greedy, or proportional to the scores."""
    seed: values.Seed = 0
    """Of the choice of rows, and of everything that the method draws."""
    options: dict[str, bool | int | float | str] = Field(default={})
    """Options of the method."""

    def to_hybrid(self) -> HybridSpec:
        """Return what the fields say."""
        return HybridSpec(
            scoring=ScoringOptions(
                method=self.scorer,
                rows=self.rows,
                sites=self.sites,
                max_rank=self.max_rank,
                seed=self.seed,
                options=self.options,
            ),
            constraints=Constraints(min_rank=self.min_rank, max_rank=self.max_rank),
            solver=self.solver,
        )

    @model_validator(mode="after")
    def _can_be_used(self) -> "HybridFields":
        with _stated():
            require_known(self.scorer)
            if self.options:
                # Imported here because methods load torch, and a plan goes without it.
                from loratlas.score.methods import scorer

                scorer(self.scorer, self.options)
            self.to_hybrid()
        return self


class PolicyFields(Fields):
    """A placement that moves while it is trained: {policy: saliency}."""

    policy: values.Text
    """What moves it: saliency, adalora, attention_entropy."""
    sites: values.Rule = "all"
    """A rule for the sites that it may use."""
    budget: values.Count = _LEFT_OUT
    """Most adapter parameters in the end; without it, the baseline's count at the study's rank."""
    initial: float = _LEFT_OUT
    """Parameters at the start, as a multiple of the budget."""
    warmup: float = _LEFT_OUT
    """Before the budget moves: below 1 a share of all steps, else steps."""
    final: float = _LEFT_OUT
    """After the last decision: below 1 a share of all steps, else steps."""
    interval: float = _LEFT_OUT
    """Between decisions: below 1 a share of all steps, else steps."""
    min_rank: values.RankOrZero = _LEFT_OUT
    """Lowest rank of a site."""
    max_rank: values.Rank = _LEFT_OUT
    """Highest rank of a site (saliency, attention_entropy)."""
    explore: float = _LEFT_OUT
    """Share of the budget for new columns at the first decision (saliency, attention_entropy)."""
    beta: float = _LEFT_OUT
    """Memory of the running average of importance."""
    beta2: float = _LEFT_OUT
    """Memory of the running average of uncertainty (adalora)."""
    orthogonality: float = _LEFT_OUT
    """Weight of the constraint on P and Q (adalora)."""
    unit: values.Text = _LEFT_OUT
    """What the budget counts: parameters, or ranks as in the paper (adalora)."""
    strength: float = _LEFT_OUT
    """How much entropy weighs (attention_entropy)."""
    rows: values.Rows = _LEFT_OUT
    """Training rows that entropies are taken from (attention_entropy)."""
    without_first_token: bool = _LEFT_OUT
    """Whether attention on the first token is left out (attention_entropy)."""

    def to_policy(self) -> PolicySpec:
        """Return what the fields say."""
        return PolicySpec.read(self.model_dump(exclude_unset=True, exclude={"sites", "budget"}))

    @model_validator(mode="after")
    def _can_be_used(self) -> "PolicyFields":
        with _stated():
            self.to_policy()
        return self


@contextmanager
def _stated() -> Iterator[None]:
    """Say what is wrong with a value in the words of whoever found it."""
    try:
        yield
    except RequestError as error:
        text = str(error).split("\n", 1)[0]
        raise PydanticCustomError("stated", "{text}", {"text": text}) from None
