"""The figures of a run as CSV and Parquet, a line a placement and a line a trial."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from loratlas.analysis.moved import is_moving
from loratlas.report.document.facts import Facts, Trial

Row = Mapping[str, Any]

# A spreadsheet takes a text that begins so for a formula, and runs it; the last four are the wide
# forms of the first, which it reads as these in some languages.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def result_rows(facts: Facts) -> list[Row]:
    """Return a line a placement: costs, loss with its interval, and its contrast."""
    contrasts = {each["placement"]: each for each in facts.results["contrasts"]}
    return [
        {
            "study": facts.name,
            "placement": record.name,
            "rule": record.rule,
            "digest": record.digest,
            "budget": record.budget,
            **_of_placement(facts.results["placements"][record.name]),
            **_of_contrast(contrasts.get(record.name)),
        }
        for record in facts.placements
    ]


def trial_rows(facts: Facts) -> list[Row]:
    """Return a line a trial."""
    counts = {
        each.digest: each.trainable_parameters for each in facts.placements if not is_moving(each)
    }
    return [_of_trial(trial, counts) for trial in facts.trials]


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write rows as CSV; unknown is empty, and no cell is a formula to a spreadsheet."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else ["study"])
        writer.writeheader()
        for row in rows:
            writer.writerow({key: _harmless(value) for key, value in row.items()})


def write_parquet(rows: Sequence[Row], path: Path) -> None:
    """Write rows as Parquet; unknown is null."""
    parquet.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)


def _harmless(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


def _of_placement(found: Row) -> Row:
    low, high = found["loss_interval"] or (None, None)
    return {
        "trainable_parameters": found["trainable_parameters"],
        "learning_rate": found["learning_rate"],
        "loss": found["loss"],
        "loss_low": low,
        "loss_high": high,
        "perplexity": found["perplexity"],
        "accuracy": found["accuracy"],
        "macro_f1": found["macro_f1"],
        "seconds": found["seconds"],
        "seconds_per_step": found["seconds_per_step"],
        "peak_memory_bytes": found["peak_memory_bytes"],
        "adapter_bytes": found["resources"]["adapter_bytes"]["on_disk"],
        "num_trials": found["num_trials"],
        "num_failed": found["num_failed"],
    }


def _of_contrast(contrast: Row | None) -> Row:
    found = contrast or {}
    low, high = found.get("interval") or (None, None)
    return {
        "baseline": found.get("baseline"),
        "difference": found.get("difference"),
        "difference_low": low,
        "difference_high": high,
        "interval_over": found.get("interval_over"),
        "p_adjusted": found.get("p_adjusted"),
        "verdict": found.get("verdict"),
    }


def _of_trial(trial: Trial, counts: Mapping[str, int]) -> Row:
    record = trial.record
    return {
        "placement": trial.placement,
        "placement_digest": record.placement_digest,
        "trainable_parameters": counts.get(record.placement_digest, record.ended_parameters),
        "learning_rate": record.learning_rate,
        "seed": record.seed,
        "status": record.status,
        "error": record.error,
        "at_chosen_rate": trial.at_chosen_rate,
        "test_loss": trial.loss.get("test"),
        "validation_loss": trial.loss.get("validation"),
        "test_accuracy": trial.accuracy,
        "seconds": record.seconds,
        "adapter_bytes": record.adapter_bytes,
        "digest": record.digest,
    }
