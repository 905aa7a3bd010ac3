"""How an audit looks as tables in a terminal of 80 columns and more."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from loratlas.report.narrow import UNKNOWN

Plain = Mapping[str, Any]

_VERDICTS = {
    "reproduces": "both figures",
    "near": "the ratio",
    "far": "no",
    None: UNKNOWN,
}


def audit_tables(audit: Plain) -> list[Table]:
    """Return what each definition says of each placement, and how it ranks them.

    Placements stand by number, 1 being the one with the lowest corpus loss.
    """
    numbers = _numbers(audit)
    return [
        _placement_table(audit, numbers),
        _perplexity_table(audit, numbers),
        _order_table(audit, numbers),
    ]


def audit_notes(audit: Plain) -> list[str]:
    """Return the sentences that the tables are to be read with."""
    return [
        "Perplexity: exp of the mean over seeds of its logarithm. Ratio: perplexity over exp of "
        "the corpus loss. Order: placements from the lowest perplexity up. A swap of two "
        "placements contradicts the corpus loss only where their seeds tell them apart both ways "
        "(95% intervals of the paired difference leave out zero).",
        *_about_seeds(audit),
        *_about_swaps(audit),
        *_not_here(audit),
        *_about_trials(audit),
    ]


def explain_tables(found: Plain) -> list[Table]:
    """Return what each definition makes of the model, beside the given pair."""
    table = _table("what each definition would report beside Trainer's loss")
    table.add_column("definition", overflow="fold", min_width=16)
    for header in ("perplexity", "ratio", "nats above\nthe loss", "from the\ngiven"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("gives")
    given = found["given"]
    table.add_row("given", number(given["perplexity"]), number(given["ratio"]), _nats(given))
    for variant in _here(found):
        cells = (number(variant["perplexity"]), number(variant["ratio"]), _nats(variant))
        distance = f"{variant['distance']:.3f}"
        table.add_row(variant["name"], *cells, distance, _VERDICTS[variant["verdict"]])
    return [table]


def explain_notes(found: Plain) -> list[str]:
    """Return in plain words which definition turns the loss into the perplexity, or that none."""
    return [*_answer(found), *_basis(found), *_not_here(found)]


def number(value: float | None) -> str:
    """Return a perplexity with about four digits, a dash where it is unknown."""
    if value is None:
        return UNKNOWN
    if value >= 1e7:
        return f"{value:.3g}"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _numbers(audit: Plain) -> dict[str, int]:
    """Return a number for each placement, by corpus loss; those without a trial come last."""
    losses = audit["loss"]
    known = sorted((name for name in losses if losses[name] is not None), key=losses.__getitem__)
    unknown = [name for name in losses if losses[name] is None]
    return {name: at for at, name in enumerate([*known, *unknown], start=1)}


def _placement_table(audit: Plain, numbers: Mapping[str, int]) -> Table:
    split, rows, tokens = audit["split"], audit["num_rows"], audit["num_tokens"]
    table = _table(f"{audit['study']}: {rows:,} {split} rows, {tokens:,} scored tokens")
    table.add_column("", justify="right")
    table.add_column("placement", overflow="fold", min_width=12)
    for header in ("seeds", "corpus loss", "exp(loss)"):
        table.add_column(header, justify="right", no_wrap=True)
    corpus = audit["variants"][0]
    table.add_row("", "untuned base", "", f"{audit['base_loss']:.4f}", number(corpus["base"]))
    for name, at in numbers.items():
        loss = audit["loss"][name]
        shown = UNKNOWN if loss is None else f"{loss:.4f}"
        seeds = str(len(audit["seeds"][name]))
        perplexity = number(corpus["per_placement"][name])
        table.add_row(str(at), escape(name), seeds, shown, perplexity)
    return table


def _perplexity_table(audit: Plain, numbers: Mapping[str, int]) -> Table:
    table = _table("perplexity by each definition")
    table.add_column("definition", overflow="fold", min_width=16)
    for header in ("base", *map(str, numbers.values())):
        table.add_column(header, justify="right", no_wrap=True)
    for variant in _here(audit):
        figures = (variant["per_placement"][name] for name in numbers)
        table.add_row(variant["name"], number(variant["base"]), *map(number, figures))
    return table


def _order_table(audit: Plain, numbers: Mapping[str, int]) -> Table:
    table = _table("the order of placements that each definition gives")
    table.add_column("definition", overflow="fold", min_width=16)
    for header in ("ratio", "order"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("against the loss", overflow="fold", min_width=11)
    for variant in _here(audit):
        cells = (_ratios(variant), _order(variant, numbers), _standing(variant))
        table.add_row(variant["name"], *cells)
    return table


def _here(found: Plain) -> list[Plain]:
    return [variant for variant in found["variants"] if variant["applies"]]


def _ratios(variant: Plain) -> str:
    ratios = [ratio for ratio in variant["ratio"].values() if ratio is not None]
    if not ratios:
        return UNKNOWN
    low, high = (f"{ratio:.3g}" for ratio in (min(ratios), max(ratios)))
    return low if low == high else f"{low} to {high}"


def _order(variant: Plain, numbers: Mapping[str, int]) -> str:
    if variant["ranking"] is None:
        return UNKNOWN
    return " ".join(str(numbers[name]) for name in variant["ranking"])


def _standing(variant: Plain) -> str:
    if variant["agrees"] is None:
        return UNKNOWN
    if variant["agrees"]:
        return "same order"
    said = {True: "contradicts", False: "within noise", None: "other order"}
    return said[variant["contradicts"]]


def _about_seeds(audit: Plain) -> Iterator[str]:
    most = max((len(seeds) for seeds in audit["seeds"].values()), default=0)
    if most == 1:
        yield "One seed: no spread is known, so no order can be said to contradict another."
    if not audit["complete"]:
        yield "The run is not complete; this is what its finished trials say."


def _about_swaps(audit: Plain) -> Iterator[str]:
    """Say of each definition how many pairs it swaps, and the one that differs most by the loss."""
    for variant in audit["variants"]:
        swaps = variant["swaps"]
        if swaps:
            sure = sum(swap["contradicts"] is True for swap in swaps)
            widest = max(
                swaps, key=lambda swap: (swap["contradicts"] is True, swap["loss_difference"])
            )
            yield (
                f"{variant['name']} swaps {_pairs(len(swaps))}, {sure} told apart both ways. "
                f"{_about_swap(widest)}"
            )


def _about_swap(swap: Plain) -> str:
    loss = _difference(swap["loss_difference"], swap["loss_interval"])
    own = _difference(swap["log_perplexity_difference"], swap["log_perplexity_interval"])
    seeds = "1 seed" if swap["num_seeds"] == 1 else f"{swap['num_seeds']} seeds"
    return (
        f"By the corpus loss {swap['better']} is before {swap['worse']}, "
        f"{loss} nats apart ({seeds}); here {swap['worse']} is before, {own}."
    )


def _pairs(count: int) -> str:
    return "1 pair" if count == 1 else f"{count} pairs"


def _difference(value: float, interval: Sequence[float] | None) -> str:
    text = f"{value:+.4f}"
    return text if interval is None else f"{text} ± {(interval[1] - interval[0]) / 2:.4f}"


def _not_here(found: Plain) -> Iterator[str]:
    missing = [variant for variant in found["variants"] if not variant["applies"]]
    if missing:
        said = "; ".join(f"{variant['name']} ({variant['reason']})" for variant in missing)
        yield f"Not applicable here: {said}."


def _about_trials(audit: Plain) -> Iterator[str]:
    for trial in audit["left_out"]:
        which = trial["placement"]
        if trial["seed"] is not None:
            which += f", rate {trial['learning_rate']:g}, seed {trial['seed']}"
        yield f"Left out: {which}: {trial['reason']}."


def _answer(found: Plain) -> Iterator[str]:
    given = found["given"]
    pair = f"loss {given['loss']:g} and perplexity {given['perplexity']:,g}"
    if found["reproduces"]:
        yield (
            f"This model on these rows gives both {pair}, to rounding, under: "
            f"{', '.join(found['reproduces'])}."
        )
    elif not found["tells"]:
        yield (
            f"Cannot tell: the model's own loss is {found['loss_gap']:.3f} nats from the given "
            f"one, and the perplexity is only {abs(given['excess']):.3f} nats from exp(loss)."
        )
    elif found["near"]:
        yield (
            f"No definition gives both figures with this model. Near is, by the ratio of "
            f"perplexity to exp(loss) alone: {', '.join(found['near'])}."
        )
    else:
        yield (
            f"None does: no definition comes near to {pair} on this model and these rows; the "
            f"nearest is {found['nearest']}."
        )


def _basis(found: Plain) -> Iterator[str]:
    given = found["given"]
    yield (
        f"The given perplexity is {number(given['ratio'])} times exp(loss), "
        f"{given['excess']:+.3f} nats."
    )
    low, high = min(found["trainer_losses"].values()), max(found["trainer_losses"].values())
    span = f"{low:.4f}" if f"{low:.4f}" == f"{high:.4f}" else f"{low:.4f} to {high:.4f}"
    if found["same_loss"]:
        yield f"Its loss on these rows is {span}, by batch size: the given loss is among them."
    else:
        yield (
            f"Its loss on these rows is {span}, by batch size, and not the given one: another "
            "model (before or after tuning, perhaps) or other rows gave the figures. What is "
            "compared then is the nats between ln(perplexity) and the loss, which another model "
            "may shift; near means within the spread over draws of such rows and the "
            f"{found['loss_gap']:.3f} nats by which the losses differ."
        )


def _nats(found: Plain) -> str:
    return f"{found['excess']:+.3f}"


def _table(title: str) -> Table:
    return Table(
        title=escape(title),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
