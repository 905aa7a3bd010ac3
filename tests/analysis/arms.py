"""Small studies with known truths, for the tests of contrasts, margins and verdicts."""

import numpy as np

from loratlas.analysis.contrasts import Arm

TOKENS = np.random.default_rng(11).integers(4, 40, size=60)
# What the untuned base gives: 3 nats per token, and more or less by row.
BASE = TOKENS * (3 + np.random.default_rng(12).normal(0, 0.3, size=60))


def arm(name, loss, *, seeds=range(6), noise=0.01):
    """A placement whose loss is the given one, with noise per seed and per row of this size."""
    seeds = tuple(seeds)
    chance = np.random.default_rng([sum(map(ord, name)), *seeds])
    size = (len(seeds), len(TOKENS))
    spread = noise * (chance.normal(size=(len(seeds), 1)) + 3 * chance.normal(size=size))
    spread -= (spread * TOKENS).sum() / TOKENS.sum() / len(seeds)
    return Arm(
        name=name, seeds=seeds, nll=BASE + TOKENS * (loss - BASE.sum() / TOKENS.sum() + spread)
    )


FULL = arm("full", 2.0)
