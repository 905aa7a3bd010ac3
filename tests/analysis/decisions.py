"""Runs with known truths, for the tests of frontiers, importance and recommendations."""

from collections.abc import Mapping

import numpy as np
from arms import BASE, TOKENS, arm

from loratlas.analysis.arms import Arms
from loratlas.analysis.contrasts import Arm
from loratlas.analysis.costs import Cost

MIB = 2**20


def run(*arms: Arm, baseline: str | None = "full", base_nll=BASE, num_tokens=TOKENS) -> Arms:
    """What was scored of these placements, with rows of the shared test data."""
    return Arms(
        scores={},
        by_name={each.name: each for each in arms},
        baseline=baseline,
        base_nll=base_nll,
        num_tokens=num_tokens,
    )


def losses(table: Mapping[str, float], **options) -> Arms:
    """A run of placements with these losses."""
    return run(*(arm(name, loss, **options) for name, loss in table.items()))


def cost(parameters: int, memory: float | None = 64, seconds: float | None = 10, **rest) -> Cost:
    """What a placement costs; memory in MiB."""
    return Cost(
        parameters=parameters,
        adapter_bytes=4 * parameters,
        memory_bytes=None if memory is None else int(memory * MIB),
        seconds=seconds,
        **rest,
    )


def same_costs(arms: Arms, **changed: Cost) -> dict[str, Cost]:
    """One cost for every placement but those given."""
    return {name: changed.get(name, cost(1_000)) for name in arms.by_name}


def simulated(
    chance: np.random.Generator,
    truths: Mapping[str, float],
    *,
    num_seeds: int = 6,
    num_examples: int = 40,
    by_seed: float = 0.02,
    by_example: float = 0.1,
    rest: float = 0.1,
) -> Arms:
    """A study drawn from crossed effects: each placement has its own of seeds and of examples."""
    tokens = np.full(num_examples, 10)
    hard = chance.normal(0, 0.5, size=num_examples)
    arms = []
    for name, truth in truths.items():
        spread = chance.normal(0, by_seed, size=(num_seeds, 1)) + chance.normal(
            0, by_example, size=num_examples
        )
        spread = spread + chance.normal(0, rest, size=(num_seeds, num_examples))
        arms.append(
            Arm(name=name, seeds=tuple(range(num_seeds)), nll=tokens * (truth + hard + spread))
        )
    return run(*arms, base_nll=tokens * (3.0 + hard), num_tokens=tokens)
