"""Write what was read from elsewhere as a run folder, whole or not at all."""

from contextlib import closing
from pathlib import Path
from typing import Any

from loratlas.anatomy.sites import digest_of
from loratlas.errors import DataError
from loratlas.imports.adapters import is_adapters, read_adapters
from loratlas.imports.base import BaseModel
from loratlas.imports.csv_table import read_table
from loratlas.imports.imported import MARGIN, Imported
from loratlas.imports.method_comparison import is_method_comparison, read_results
from loratlas.measure.answers import TaskScore
from loratlas.new_folder import new_folder, require_new
from loratlas.study.records import BASE
from loratlas.study.store import FILE_NAME, Store

EXPECTED = (
    "a CSV table with the columns placement, seed, learning_rate, trainable_parameters and loss; "
    "a folder of JSON results of PEFT's method_comparison; a folder with an adapter_config.json, "
    "or a folder of such folders"
)


def import_run(
    source: Path, run: Path, base: BaseModel, *, baseline: str | None = None
) -> dict[str, Any]:
    """Read a source and write it as a run.

    Args:
        source: the table or folder.
        run: the new run folder.
        base: the base model, where a person names it.
        baseline: the placement that the others are held against; None takes the first.

    Returns:
        keys as the ``import`` command documents them.

    Raises:
        DataError: the source has another shape than is read.
        RunFolderError: something is in the place of the run.
    """
    require_new(run)
    found = _read(source, base)
    reference = found.baseline(baseline)
    chosen = found.chosen()
    setting = _setting(found, source, reference, chosen)
    with (
        new_folder(run) as partial,
        closing(Store(partial / FILE_NAME, writable=True)) as store,
    ):
        _keep(store, found, setting)
    return {
        "run": str(run),
        "source": found.source,
        "baseline": reference,
        "num_placements": len(found.placements),
        "num_trials": len(found.trials),
        "notes": list(found.notes),
    }


def _read(source: Path, base: BaseModel) -> Imported:
    try:
        if source.is_file() and source.suffix.lower() == ".csv":
            return read_table(source)
        if source.is_dir() and is_adapters(source):
            return read_adapters(source, base)
        if source.is_dir() and is_method_comparison(source):
            return read_results(source, base)
        kind = "there is no such file or folder" if not source.exists() else "is none that is read"
    except OSError as error:
        raise DataError(f"{source}: cannot be read: {error.strerror}") from error
    raise DataError(f"{source}: {kind}; expected {EXPECTED}")


def _setting(
    found: Imported, source: Path, baseline: str, chosen: dict[str, float | None]
) -> dict[str, Any]:
    records = [record for record, _ in found.trials]
    study = {
        "baseline": baseline,
        "margin": MARGIN,
        "seeds": sorted({record.seed for record in records}),
        "training": {"learning_rate": sorted({record.learning_rate for record in records})},
    }
    return {
        "name": source.stem,
        "chosen": chosen,
        "wanted": [record.digest for record in records],
        "num_trials": len(records),
        "rates_chosen": True,
        "finished": True,
        "imported_from": found.source,
        "measures": {name: digest_of({"imported": name}) for name in found.tasks},
        "anatomy": None if found.anatomy is None else found.anatomy.to_json(),
        **found.setting,
        "study": {**study, **found.setting.get("study", {})},
    }


def _keep(store: Store, found: Imported, setting: dict[str, Any]) -> None:
    store.set_placements(found.placements)
    store.add_trials((record, {}, scores) for record, scores in found.trials)
    if found.base:
        store.set_base_scores(found.base)
    for digest, probe in found.probes.items():
        store.set_probe(digest, probe)
    for task, by_trial in found.tasks.items():
        digest = setting["measures"][task]
        store.set_measurement(BASE, task, digest, _unknown(by_trial.values()))
        for trial, score in by_trial.items():
            store.set_measurement(trial, task, digest, score)
    for key, value in setting.items():
        store.set_meta(key, value)


def _unknown(scores: Any) -> TaskScore:
    """Return what stands for the untuned base, which was not asked: the figures, all unknown."""
    names = dict.fromkeys(name for score in scores for name in score.metrics)
    return TaskScore(metrics=dict.fromkeys(names), answers=(), seconds=0.0)
