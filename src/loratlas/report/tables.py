"""How results look as tables in a terminal of 80 columns and more."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from loratlas.report.conclusions import conclusions, verdict_tables
from loratlas.report.measured import measure_tables
from loratlas.report.narrow import (
    UNKNOWN,
    Column,
    by_placement,
    figure,
    narrow_table,
    percent,
    with_interval,
)


def results_tables(results: Mapping[str, Any]) -> list[Table]:
    """Return what was learned, what was adapted, and what it costs: a line a placement."""
    return [
        _loss_table(results),
        *verdict_tables(results),
        *measure_tables(results),
        _parameter_table(results),
        _cost_table(results),
    ]


def notes(results: Mapping[str, Any]) -> list[str]:
    """Return the sentences that the tables are to be read with."""
    lines = [
        *conclusions(results),
        f"Loss: nats per scored prediction over all {results['split']} rows. ± is half a 95% "
        f"interval of the mean, over {_scope(results)}. Differences are paired by seed and "
        "example; below zero is better. Cost: each placement alone, by a probe.",
    ]
    lines += [
        f"{name}: {found['num_failed']} of {found['num_trials']} trials diverged or failed; "
        + ("no loss is known." if found["loss"] is None else "its mean is over the others.")
        for name, found in results["placements"].items()
        if found["num_failed"]
    ]
    return [*lines, *_moving(results), *_apart(results["engines"])]


def _moving(results: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is shown of placements that a policy moves."""
    found = {
        name: each
        for name, each in results["placements"].items()
        if (each.get("learned") or {}).get("kind") == "dynamic"
    }
    if found:
        yield (
            f"Moved while they were trained: {', '.join(found)}. Sites, ranks and parameters are "
            "those in the end, parameters the mean over seeds; the report shows how. What they "
            "cost is not known: a probe trains what stands still."
        )
    for name, each in found.items():
        if each["trainable_parameters_range"] is not None:
            fewest, most = each["trainable_parameters_range"]
            yield (
                f"{name}: {fewest:,} to {most:,} parameters in the end, its budget is "
                f"{each['learned']['target_parameters']:,}."
            )


def _apart(engines: Mapping[str, Any]) -> Iterator[str]:
    """Yield why some trials of a run were trained alone while others were packed."""
    packed, alone = engines["packed"], engines["reference"]
    if packed and alone:
        reasons = "; ".join(
            f"{each['reason']} ({each['num_trials']})" for each in engines["reasons"]
        )
        yield (
            f"{alone} of {packed + alone} trials were trained one after another by the reference "
            f"engine{': ' if reasons else ''}{reasons}. The others trained together in packs; "
            "losses agree between the engines up to rounding."
        )


def _loss_table(results: Mapping[str, Any]) -> Table:
    base = results["base"]
    rows = [
        ("untuned base", ["0", figure(base["loss"]), *_quality(base)]),
        *(
            (
                name,
                [
                    f"{found['trainable_parameters']:,}",
                    with_interval(found["loss"], found["loss_interval"]),
                    *_quality(found),
                ],
            )
            for name, found in results["placements"].items()
        ),
    ]
    of_classes = base["macro_f1"] is not None
    quality = ("accuracy", "macro F1") if of_classes else ("perplexity",)
    headers = ("parameters", "loss", *quality)
    return narrow_table(f"{results['study']}: {results['split']} rows", headers, rows)


def _scope(results: Mapping[str, Any]) -> str:
    scopes = {found["loss_interval_over"] for found in results["placements"].values()} - {None}
    return " or ".join(sorted(scopes)) or "nothing: too few seeds and examples"


def _quality(found: Mapping[str, Any]) -> list[str]:
    """Return accuracy and F1 of a classifier, else perplexity."""
    if found["macro_f1"] is not None:
        return [figure(found["accuracy"], 3), figure(found["macro_f1"], 3)]
    return [figure(found["perplexity"], 2)]


def _parameter_table(results: Mapping[str, Any]) -> Table:
    columns: list[Column] = [
        ("sites", lambda found: figure(found["num_sites"], 0)),
        ("rank", lambda found: ", ".join(map(str, found["ranks"])) or UNKNOWN),
        ("parameters", lambda found: f"{found['trainable_parameters']:,}"),
        ("of base\nand adapters", lambda found: percent(found, "percent_of_base_and_adapters")),
        (
            "less than\nfull tuning",
            lambda found: percent(found, "percent_saved_against_full_fine_tuning"),
        ),
        ("less than\nbaseline", lambda found: percent(found, "percent_saved_against_baseline")),
    ]
    return by_placement("what was adapted", columns, results)


def _cost_table(results: Mapping[str, Any]) -> Table:
    columns: list[Column] = [
        ("rate", lambda found: _rate(found["learning_rate"])),
        ("trials", _trials),
        ("ms per\nstep", lambda found: figure(_times(found["seconds_per_step"], 1000), 1)),
        ("tokens\nper second", lambda found: figure(found["tokens_per_second"], 0)),
        ("seconds\nper trial", lambda found: figure(found["seconds"], 1)),
        ("peak memory\nabove model", lambda found: _mebibytes(found["peak_memory_bytes"])),
    ]
    return by_placement("what it costs", columns, results)


def _trials(found: Mapping[str, Any]) -> str:
    done = found["num_trials"] - found["num_failed"]
    return str(done) if not found["num_failed"] else f"{done} of {found['num_trials']}"


def _rate(rate: float | None) -> str:
    return UNKNOWN if rate is None else f"{rate:g}"


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else factor * value


def _mebibytes(size: int | None) -> str:
    return UNKNOWN if size is None else f"{size / 2**20:,.0f} MiB"
