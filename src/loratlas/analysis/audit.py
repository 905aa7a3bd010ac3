"""Which ranking of placements does each definition give, and does it contradict the corpus loss?

A ranking is compared pair by pair. A pair that a definition puts the other way round is a *swap*.
A swap is a contradiction only where the seeds tell the pair apart both ways: the 95% interval of
the paired difference leaves out zero under the corpus loss, and under the definition, too.
Otherwise one of the two orders is noise, and swapping it says nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import TYPE_CHECKING, Any

from loratlas.analysis.intervals import mean_interval
from loratlas.analysis.quality import finite
from loratlas.measure.scores import perplexity

if TYPE_CHECKING:
    from loratlas.measure.audit.explain import Account, Explanation
    from loratlas.measure.audit.variants import Reading
    from loratlas.study.audit_run import RunReadings

CORPUS = "corpus"
BySeed = Mapping[int, float]
"""Ln of a perplexity by the seed of its trial."""


def audit(readings: "RunReadings", study: str | None) -> dict[str, Any]:
    """Return the audit of a run, keys as the ``audit`` command documents them.

    What does not apply is None; no figure is NaN or infinite.
    """
    values = {
        name: {placement: _by_seed(seeds, name) for placement, seeds in readings.placements.items()}
        for name in readings.base
    }
    corpus = values[CORPUS]
    return {
        "study": study,
        "split": readings.split,
        "num_rows": readings.num_rows,
        "num_tokens": readings.num_tokens,
        "batch": readings.setting.batch,
        "accumulation": readings.setting.accumulation,
        "window": readings.setting.window,
        "complete": readings.complete,
        "loss": {name: _mean(seeds) for name, seeds in corpus.items()},
        "base_loss": readings.base[CORPUS].log_perplexity,
        "seeds": {name: sorted(seeds) for name, seeds in corpus.items()},
        "left_out": [asdict(trial) for trial in readings.left_out],
        "variants": [
            {**_described(reading, values[name]), **_figures(reading, values[name], corpus)}
            for name, reading in readings.base.items()
        ],
    }


def explanation(found: "Explanation", readings: Mapping[str, "Reading"]) -> dict[str, Any]:
    """Return what can be said of a loss and a perplexity, keys as the command documents them."""
    given = found.given
    return {
        "given": {
            "loss": given.loss.value,
            "perplexity": given.perplexity.value,
            "ratio": finite(perplexity(given.excess)),
            "excess": given.excess,
        },
        "trainer_losses": dict(found.losses),
        "same_loss": found.same_loss,
        "loss_gap": found.loss_gap,
        "tells": found.tells,
        "reproduces": found.named("reproduces"),
        "near": found.named("near"),
        "nearest": found.nearest,
        "variants": [
            {**_named(reading), **_account(found.accounts[name])}
            for name, reading in readings.items()
        ],
    }


def ranking(means: Mapping[str, float | None], losses: Mapping[str, float | None]) -> list[str]:
    """Return the placements, the lowest perplexity first; equals in the order of their loss."""
    known = {name: mean for name, mean in means.items() if mean is not None}
    return sorted(known, key=lambda name: (known[name], losses[name] or 0.0))


def swaps(values: Mapping[str, BySeed], corpus: Mapping[str, BySeed]) -> list[dict[str, Any]]:
    """Return the pairs of placements that a definition puts the other way round.

    Args:
        values: ln of the perplexity by placement and seed.
        corpus: corpus losses by placement and seed.

    Returns:
        for each such pair its differences, worse less better by the corpus loss, in nats, with
        95% intervals over the seeds that both have; None where these are fewer than two.
    """
    known = [name for name, seeds in values.items() if seeds and corpus[name]]
    pairs = (sorted(pair, key=lambda name: _sure(corpus[name])) for pair in combinations(known, 2))
    return [
        _swap(better, worse, values, corpus)
        for better, worse in pairs
        if _gap(better, worse, values) * _gap(better, worse, corpus) < 0
    ]


def _swap(
    better: str, worse: str, values: Mapping[str, BySeed], corpus: Mapping[str, BySeed]
) -> dict[str, Any]:
    by_loss = _differences(corpus[better], corpus[worse])
    loss_interval = mean_interval(by_loss)
    own_interval = mean_interval(_differences(values[better], values[worse]))
    return {
        "better": better,
        "worse": worse,
        "loss_difference": _gap(better, worse, corpus),
        "loss_interval": loss_interval,
        "log_perplexity_difference": _gap(better, worse, values),
        "log_perplexity_interval": own_interval,
        "num_seeds": len(by_loss),
        "contradicts": _told_apart(loss_interval, own_interval),
    }


def _figures(
    reading: "Reading", values: Mapping[str, BySeed], corpus: Mapping[str, BySeed]
) -> dict[str, Any]:
    """Return what a definition says; a placement's perplexity is exp of its mean over seeds."""
    means = {name: _mean(seeds) for name, seeds in values.items()}
    losses = {name: _mean(seeds) for name, seeds in corpus.items()}
    comparable = sum(mean is not None for mean in means.values()) > 1
    found = swaps(values, corpus)
    return {
        "base": _perplexity(reading.log_perplexity),
        "per_placement": {name: _perplexity(mean) for name, mean in means.items()},
        "per_seed": {
            name: {str(seed): _perplexity(value) for seed, value in seeds.items()}
            for name, seeds in values.items()
        },
        "ratio": {name: _ratio(mean, losses[name]) for name, mean in means.items()},
        "ranking": ranking(means, losses) if comparable else None,
        "agrees": not found if comparable else None,
        "contradicts": _contradicts(found) if comparable else None,
        "swaps": found,
    }


def _described(reading: "Reading", values: Mapping[str, BySeed]) -> dict[str, Any]:
    """Return a variant's name and whether it applies anywhere in the run."""
    applies = reading.reason is None or any(values.values())
    return {**_named(reading), "applies": applies, "reason": None if applies else reading.reason}


def _named(reading: "Reading") -> dict[str, Any]:
    variant = reading.variant
    return {
        "name": variant.name,
        "description": variant.what,
        "source": variant.source or None,
        "applies": reading.reason is None,
        "reason": reading.reason,
    }


def _account(account: "Account | None") -> dict[str, Any]:
    if account is None:
        keys = ("perplexity", "ratio", "excess", "excess_range", "distance", "allowed", "verdict")
        return dict.fromkeys(keys)
    return {
        "perplexity": _perplexity(account.log_perplexity),
        "ratio": finite(perplexity(account.excess)),
        "excess": account.excess,
        "excess_range": list(account.excess_range),
        "distance": account.distance,
        "allowed": account.allowed,
        "verdict": account.verdict,
    }


def _by_seed(seeds: Mapping[int, Mapping[str, "Reading"]], name: str) -> dict[int, float]:
    found = {seed: readings[name].log_perplexity for seed, readings in sorted(seeds.items())}
    return {seed: value for seed, value in found.items() if value is not None}


def _gap(better: str, worse: str, values: Mapping[str, BySeed]) -> float:
    return _sure(values[worse]) - _sure(values[better])


def _differences(better: BySeed, worse: BySeed) -> list[float]:
    return [worse[seed] - better[seed] for seed in better if seed in worse]


def _told_apart(*intervals: Sequence[float] | None) -> bool | None:
    """Return whether every interval leaves out zero, None where one is not known."""
    known = [interval for interval in intervals if interval is not None]
    if len(known) < len(intervals):
        return None
    return all(low > 0 or high < 0 for low, high in known)


def _contradicts(found: Sequence[Mapping[str, Any]]) -> bool | None:
    """Return whether any swap is a contradiction, None where that hangs on an unknown spread."""
    verdicts = [swap["contradicts"] for swap in found]
    if True in verdicts:
        return True
    return None if None in verdicts else False


def _sure(seeds: BySeed) -> float:
    return math.fsum(seeds.values()) / len(seeds)


def _mean(seeds: BySeed) -> float | None:
    return _sure(seeds) if seeds else None


def _perplexity(log_perplexity: float | None) -> float | None:
    return None if log_perplexity is None else finite(perplexity(log_perplexity))


def _ratio(log_perplexity: float | None, loss: float | None) -> float | None:
    if log_perplexity is None or loss is None:
        return None
    return finite(perplexity(log_perplexity - loss))
