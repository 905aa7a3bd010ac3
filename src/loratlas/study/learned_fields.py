"""Which keys may a person write for a placement that is learned: by scores, or while it trains?"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from loratlas.allocate.allocation import Solver
from loratlas.allocate.budget import Budget
from loratlas.allocate.constraints import Cap, Constraints, Tie, require_no_limits, rule_of_roles
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
    ranks: Annotated[
        list[values.RankOrZero],
        Field(min_length=1, max_length=1000),
        AfterValidator(values.distinct),
    ] = _LEFT_OUT
    """Ranks that a site may have, 0 among them if it may be left out: [0, 4, 8, 16]."""
    ties: list[values.Text] = Field(default=[], max_length=100)
    """Sites of one layer that share a rank, one entry for each tie: "q, k, v", or a rule."""
    tie_layers: list[values.Text] = Field(default=[], max_length=100)
    """Sites of all layers that share a rank, one entry for each tie: roles, or a rule."""
    caps: dict[str, values.Count] = Field(default={}, max_length=100)
    """Most adapter parameters of groups of sites, by their rules: {attention: 500000}."""
    max_sites: values.Count = _LEFT_OUT
    """Most sites with an adapter."""
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
            constraints=self._constraints(),
            solver=self.solver,
        )

    def _constraints(self) -> Constraints:
        alike = [Tie(rule=rule_of_roles(text)) for text in self.ties]
        across = [Tie(rule=rule_of_roles(text), across_layers=True) for text in self.tie_layers]
        return Constraints(
            ranks=None if self.ranks is None else tuple(self.ranks),
            min_rank=self.min_rank,
            max_rank=self.max_rank,
            ties=(*alike, *across),
            caps=tuple(Cap(rule=rule, most=Budget(amount=n)) for rule, n in self.caps.items()),
            max_sites=self.max_sites,
        )

    @model_validator(mode="after")
    def _can_be_used(self) -> "HybridFields":
        with _stated():
            require_known(self.scorer)
            if self.options:
                # Imported here because methods load torch, and a plan goes without it.
                from loratlas.score.methods import scorer

                scorer(self.scorer, self.options)
            constraints = self.to_hybrid().constraints
            rules = [tie.rule for tie in constraints.ties] + [cap.rule for cap in constraints.caps]
            for rule in rules:
                values.check_rule(rule)
            if self.solver == "proportional":
                require_no_limits(constraints)
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
