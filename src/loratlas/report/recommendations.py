"""How a recommendation is told: in sentences, as a table, and as JSON."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table

from loratlas.analysis.budget import Allowed, Budget
from loratlas.analysis.costs import EQUAL_COST
from loratlas.analysis.estimates import Estimate
from loratlas.analysis.more_seeds import MOST_SEEDS
from loratlas.analysis.power import POWER
from loratlas.analysis.recommend import Contest, Recommendation
from loratlas.report.conclusions import p_value
from loratlas.report.narrow import UNKNOWN, figure, narrow_table

_MIB = 2**20


def recommendation(
    found: Recommendation, study: str | None, unfinished: Sequence[str] = ()
) -> dict[str, Any]:
    """Return a recommendation as plain data, keys as the ``recommend`` command documents them.

    Args:
        found: the recommendation.
        study: name of the study.
        unfinished: what is still to be done in the run, in sentences.
    """
    return {
        "study": study,
        "placement": found.placement,
        "verdict": found.verdict,
        "indistinguishable": list(found.indistinguishable),
        "evidence": [*_evidence(found), *unfinished],
        "more_seeds": found.more_seeds,
        "preset": found.preset,
        "budget": _budget(found.budget),
        "tolerance": found.tolerance,
        "nearest": found.nearest,
        "level": None if found.rivals is None else found.rivals.level,
        "placements": {name: _placement(found, name) for name in found.standings},
        "contests": [_contest(each) for each in found.contests],
    }


def unfinished(standing: dict[str, Any]) -> list[str]:
    """Return what a run has still to do, in sentences, none where it is complete."""
    if standing["complete"]:
        return []
    missing, total = standing["missing"], standing["num_trials"]
    if missing is None:
        return ["The run has only begun: its trials are not laid out yet."]
    if not missing:
        return ["The run is not finished; `loratlas run` goes on with it."]
    are = "is" if missing == 1 else "are"
    return [f"The run is not finished: {missing} of {total} trials {are} missing."]


def recommendation_table(recommended: dict[str, Any]) -> Table:
    """Return every placement with what it costs and how it is held against the one taken."""
    one = recommended["placement"]
    rows = [
        (
            name,
            [
                f"{found['trainable_parameters']:,}",
                _mebibytes(found["peak_memory_bytes"]),
                figure(found["seconds"], 1),
                figure(found["loss"]),
                _against(found, is_one=name == one),
                _standing(found, name, recommended),
            ],
        )
        for name, found in recommended["placements"].items()
    ]
    headers = ("parameters", "MiB", "seconds", "loss", "above it", "standing")
    title = f"{recommended['study']}: {recommended['preset']}"
    return narrow_table(title, headers, rows, folded=("standing",))


def recommendation_notes(recommended: dict[str, Any]) -> list[str]:
    """Return the answer and its evidence, and how the table is to be read."""
    return [
        *recommended["evidence"],
        "Loss: nats per scored prediction, test rows. Above it: the difference from the placement "
        "taken, paired by seed and example, with the ends of its interval; each end is where the "
        "one-sided test would just tell the two apart, corrected for the comparisons of a "
        "placement. It captures new seeds and new examples. Cheaper: fewer parameters, then less "
        "memory above the model, then less time a trial; what differs by at most "
        f"{EQUAL_COST * 100:g}% counts as equal.",
        *_not_probed(recommended),
    ]


def _not_probed(recommended: dict[str, Any]) -> Iterator[str]:
    """Yield why the cost of some placements is not known."""
    found = recommended["placements"].items()
    names = [name for name, each in found if each["seconds"] is None]
    if names:
        yield (
            f"Memory and seconds are not known of {', '.join(names)}: a probe is missing, as it is "
            "of every placement that moves while it trains."
        )


def _evidence(found: Recommendation) -> Iterator[str]:
    yield _answer(found)
    yield from found.says
    if found.placement is not None:
        yield from _runners_up(found)
    if found.rivals is not None:
        yield from _ruled_out(found)
    for contest in found.contests:
        yield _seeds(contest)
    for name, each in found.standings.items():
        if each.reasons:
            yield f"{name}: {_STANDING[each.standing]}. {' '.join(each.reasons)}"


_STANDING = {
    "over the budget": "over the budget",
    "loss not shown": "not allowed",
    "set aside": "set aside",
}


def _answer(found: Recommendation) -> str:
    one, count = found.placement, len(found.acceptable)
    if found.verdict == "none allowed":
        near = "" if found.nearest is None else f" The nearest is {found.nearest}."
        return f"No placement can be recommended: none is within the budget and scored.{near}"
    if found.verdict == "cannot tell":
        return f"Cannot tell: no placement can be held against another. {_why_not(found)}"
    if found.verdict == "only one allowed":
        return f"Take {one}: no other placement is within the budget and scored."
    if found.verdict == "best":
        return f"Take {one}: its loss is shown to be the lowest of all that are allowed."
    if found.verdict == "lowest loss":
        return (
            f"Take {one}: it has the lowest loss here, and no cheaper placement that may be the "
            f"best is shown to lie within {_percent(found.tolerance)} of the baseline's gain of it."
        )
    if count == 1:
        return f"Take {one}: it is the only placement that {_will_do(found, 'is')}."
    names = ", ".join(found.acceptable)
    will_do = _will_do(found, "are")
    return f"Take {one}: of the {count} placements that {will_do}, it is the cheapest ({names})."


def _will_do(found: Recommendation, verb: str) -> str:
    if found.tolerance is None:
        return f"{verb} shown to keep to the limit on the loss"
    assert found.rivals is not None
    within = f"{verb} shown to lie within {_percent(found.tolerance)} of the baseline's gain of it"
    if set(found.acceptable) <= set(found.rivals.may_be_best):
        return "may have the lowest loss"
    return f"may have the lowest loss or {within}"


def _why_not(found: Recommendation) -> str:
    assert found.rivals is not None
    said = [each for found in found.rivals.estimates.values() for each in found.says]
    return " ".join(list(dict.fromkeys(said))[:1])


def _percent(share: float | None) -> str:
    assert share is not None
    return f"{share * 100:.3g}%"


def _runners_up(found: Recommendation) -> Iterator[str]:
    assert found.rivals is not None
    assert found.placement is not None
    told = [
        _with_difference(name, found.rivals.estimates[name, found.placement])
        for name in found.indistinguishable
    ]
    if told:
        yield f"Its loss cannot be told from that of {'; '.join(told)}."


def _with_difference(name: str, found: Estimate) -> str:
    if found.value is None:
        return name
    if found.interval is None:
        return f"{name} ({found.value:+.4g})"
    return f"{name} ({found.value:+.4g}, {found.interval[0]:+.4g} to {found.interval[1]:+.4g})"


def _ruled_out(found: Recommendation) -> Iterator[str]:
    assert found.rivals is not None
    for name in found.rivals.losses:
        better = found.rivals.ruled_out_by(name)
        if better:
            lowest = min(better, key=found.rivals.losses.__getitem__)
            value = found.rivals.estimates[name, lowest].value
            p = p_value(found.rivals.p_above(name))
            yield (
                f"{name} is not the best: its loss is {value:.4g} nats per token above that of "
                f"{lowest} (p {p if p.startswith('<') else f'= {p}'}, corrected)."
            )


def _seeds(contest: Contest) -> str:
    needed, value = contest.needed, contest.difference.value
    if contest.rival is None:
        question = f"whether {contest.placement} keeps to the limit on the loss"
    else:
        question = f"whether {contest.rival} is better than {contest.placement}"
    if needed.outcome == "enough":
        seeds = "seed" if needed.more == 1 else "seeds"
        return (
            f"{needed.more} more {seeds}, {needed.in_all} in all, would tell {question}, should "
            f"the truth be the {abs(value or 0.0):.4g} nats per token seen here (power "
            f"{POWER * 100:.0f}%)."
        )
    if needed.outcome == "examples":
        return (
            f"No number of seeds would tell {question}: the test rows differ too much (power at "
            f"most {(needed.most_power or 0.0) * 100:.0f}%). More test rows could."
        )
    if needed.outcome == "too many":
        return f"More than {MOST_SEEDS} seeds would be needed to tell {question}."
    return f"How many seeds would tell {question} is not known: there is no spread to plan with."


def _budget(budget: Budget) -> dict[str, Any]:
    loss = budget.loss
    return {
        "max_parameters": budget.parameters,
        "max_memory_bytes": budget.memory_bytes,
        "max_seconds": budget.seconds,
        "max_loss_increase": None if loss is None else loss.amount,
        "max_loss_increase_unit": None
        if loss is None
        else "share of the baseline's gain"
        if loss.is_share
        else "nats per token",
    }


def _placement(found: Recommendation, name: str) -> dict[str, Any]:
    cost, standing = found.costs[name], found.standings[name]
    return {
        "standing": standing.standing,
        "reasons": list(standing.reasons),
        "trainable_parameters": cost.parameters,
        "peak_memory_bytes": cost.memory_bytes,
        "seconds": cost.seconds,
        **_held(found, name, standing),
    }


def _held(found: Recommendation, name: str, standing: Allowed) -> dict[str, Any]:
    held = None if standing.standing != "allowed" else found.rivals
    difference = None
    if held is not None and found.placement not in (None, name):
        difference = held.estimates[name, found.placement or ""]
    return {
        "loss": found.losses[name],
        "acceptable": name in found.acceptable,
        "may_be_best": None if held is None else name in held.may_be_best,
        "p_above_best": None if held is None else held.p_above(name),
        "p_not_near_best": found.p_not_near.get(name),
        "difference": None if difference is None else difference.value,
        "interval": None
        if difference is None or difference.interval is None
        else list(difference.interval),
        "num_seeds": None if difference is None else difference.num_seeds,
    }


def _contest(contest: Contest) -> dict[str, Any]:
    return {
        "placement": contest.placement,
        "rival": contest.rival,
        "difference": contest.difference.value,
        "outcome": contest.needed.outcome,
        "more_seeds": contest.needed.more,
        "seeds_in_all": contest.needed.in_all,
        "most_power": contest.needed.most_power,
    }


def _against(found: dict[str, Any], *, is_one: bool) -> str:
    if is_one or found["difference"] is None:
        return "" if is_one else UNKNOWN
    text = f"{found['difference']:+.4f}"
    if found["interval"] is None:
        return text
    low, high = found["interval"]
    return f"{text}\n{low:+.4f} to {high:+.4f}"


def _standing(found: dict[str, Any], name: str, recommended: dict[str, Any]) -> str:
    if name == recommended["placement"]:
        return "taken"
    if found["standing"] != "allowed":
        return str(found["standing"])
    if name in recommended["indistinguishable"]:
        return "cannot be told from it"
    if found["difference"] is None:
        return "cannot tell"
    return "lower loss" if found["difference"] < 0 else "higher loss"


def _mebibytes(size: int | None) -> str:
    return UNKNOWN if size is None else f"{size / _MIB:,.0f}"
