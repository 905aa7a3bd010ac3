"""What do the results of PEFT's ``method_comparison`` say? One JSON file an experiment.

Such a file has ``run_info`` (experiment_name, train_config, peft_config), ``train_info`` (status,
num_trainable_params, metrics, ...) and ``meta_info``; the last of its metrics has the figures of
the test set, such as ``test accuracy``. Losses of test rows are not in it: quality is the test
figures, as a task.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from loratlas.anatomy.sites import Anatomy, digest_of
from loratlas.errors import DataError, RequestError
from loratlas.imports.base import BaseModel, in_short, resolved, unresolved
from loratlas.imports.imported import ENGINE, Imported
from loratlas.measure.answers import TaskScore
from loratlas.study.records import PlacementRecord, TrialRecord
from loratlas.train.outcome import Probe

EXPECTED = (
    "expected an object with run_info (experiment_name, train_config, peft_config) and train_info "
    "(status, num_trainable_params, metrics), as PEFT's method_comparison writes it"
)
_TEST = "test "


@dataclass(frozen=True, kw_only=True, slots=True)
class _Result:
    """One file, read.

    Attributes:
        file: where it lies.
        run: its ``run_info``.
        train: its ``train_info``.
        meta: its ``meta_info``.
    """

    file: Path
    run: Mapping[str, Any]
    train: Mapping[str, Any]
    meta: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The experiment."""
        return str(self.run["experiment_name"])

    @property
    def config(self) -> Mapping[str, Any]:
        """How it was trained."""
        found: Mapping[str, Any] = self.run["train_config"]
        return found

    @property
    def rate(self) -> float | None:
        """Its learning rate; None where the file does not say one."""
        rate = (self.config.get("optimizer_kwargs") or {}).get("lr")
        return float(rate) if _is_number(rate) and rate > 0 else None

    @property
    def seed(self) -> int | None:
        """Its seed."""
        seed = self.config.get("seed")
        return seed if isinstance(seed, int) and not isinstance(seed, bool) else None

    @property
    def steps(self) -> Sequence[Mapping[str, Any]]:
        """Figures during the training."""
        return [each for each in self.train["metrics"] if isinstance(each, Mapping)]

    @property
    def test(self) -> dict[str, float | None]:
        """Figures of the test set, by name; empty where it did not come to that."""
        none: Mapping[str, Any] = {}
        last = next((each for each in reversed(self.steps) if _tests(each)), none)
        return {
            key.removeprefix(_TEST): float(last[key]) if _is_number(last[key]) else None
            for key in _tests(last)
        }


def is_method_comparison(folder: Path) -> bool:
    """Return whether a folder holds JSON files that may be such results."""
    return bool(_files(folder))


def read_results(folder: Path, base: BaseModel) -> Imported:
    """Read a folder of results, or the folder ``results`` in it.

    Raises:
        DataError: a file has another shape, or the results are of different models.
    """
    every = [_read(file) for file in _files(folder)]
    _require_one_model(folder, every)
    newest, notes = _newest(every)
    usable = [each for each in newest if each.rate is not None and each.seed is not None]
    notes += [f"{each.file.name}: left out: it states no learning rate or no seed"
              for each in newest if each not in usable]  # fmt: skip
    if not usable:
        raise DataError(f"{folder}: no result states a learning rate and a seed")
    anatomy = base.anatomy()
    placements = _placements(usable, anatomy, notes)
    digests = {placement.name: placement.digest for placement in placements}
    task = folder.parent.name if folder.name == "results" else folder.name
    scores = {_digest(each): _score(each) for each in usable if each.test}
    return Imported(
        source="method_comparison",
        placements=placements,
        trials=[(_record(each, digests[each.name]), {}) for each in usable],
        tasks={task: scores} if scores else {},
        probes={digests[each.name]: probe for each in usable if (probe := _probe(each))},
        anatomy=anatomy,
        setting=_setting(usable),
        notes=[*notes, *_remarks(usable)],
    )


def _files(folder: Path) -> list[Path]:
    inner = folder / "results"
    return sorted(inner.glob("*.json") if inner.is_dir() else folder.glob("*.json"))


def _read(file: Path) -> _Result:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: cannot be read as JSON: {error}") from None
    parts = [
        data.get(key) if isinstance(data, dict) else None for key in ("run_info", "train_info")
    ]
    run, train = (part if isinstance(part, dict) else {} for part in parts)
    whole = (
        isinstance(run.get("experiment_name"), str)
        and isinstance(run.get("train_config"), dict)
        and isinstance(run.get("peft_config"), dict | None)
        and isinstance(train.get("metrics"), list)
        and isinstance(train.get("num_trainable_params"), int)
        and isinstance(train.get("status"), str)
    )
    if not whole:
        raise DataError(f"{file}: {EXPECTED}")
    meta = data.get("meta_info")
    return _Result(file=file, run=run, train=train, meta=meta if isinstance(meta, dict) else {})


def _require_one_model(folder: Path, every: Sequence[_Result]) -> None:
    models = sorted({str(each.config.get("model_id")) for each in every})
    if len(models) > 1:
        raise DataError(
            f"{folder}: results of different models do not compare: {', '.join(models)}; "
            "import them apart"
        )


def _newest(every: Sequence[_Result]) -> tuple[list[_Result], list[str]]:
    """Return the newest result of each experiment, rate and seed, and what was left out."""
    found: dict[tuple[Any, ...], _Result] = {}
    for each in sorted(every, key=lambda one: str(one.run.get("created_at"))):
        found[each.name, each.rate, each.seed] = each
    kept = sorted(found.values(), key=lambda one: one.file.name)
    left = [each for each in every if each not in kept]
    return kept, [f"{each.file.name}: left out: a newer result has its name" for each in left]


def _placements(
    results: Sequence[_Result], anatomy: Anatomy | None, notes: list[str]
) -> list[PlacementRecord]:
    found: dict[str, PlacementRecord] = {}
    for each in results:
        if each.name not in found:
            found[each.name] = _placement(each, anatomy, notes)
    return list(found.values())


def _placement(result: _Result, anatomy: Anatomy | None, notes: list[str]) -> PlacementRecord:
    config, count = result.run["peft_config"], result.train["num_trainable_params"]
    if anatomy is not None and config is not None and config.get("peft_type") == "LORA":
        try:
            record = resolved(result.name, config, anatomy, parameters=count)
        except RequestError as error:
            notes.append(f"{result.name}: its sites are not known: {error}")
        else:
            if record.adapters:
                return record
    return unresolved(result.name, in_short(config), count)


def _digest(result: _Result) -> str:
    return digest_of({"imported": [result.name, result.rate, result.seed]})


def _record(result: _Result, placement_digest: str) -> TrialRecord:
    assert result.rate is not None
    assert result.seed is not None
    done = result.train["status"] == "success" and bool(result.test)
    told = str(result.run.get("error_msg") or "") or "it has no figures of the test set"
    reserved = result.train.get("accelerator_memory_max", result.train.get("cuda_memory_max"))
    memory = {"before": None, "peak": None, "reserved": reserved}
    return TrialRecord(
        digest=_digest(result),
        placement_digest=placement_digest,
        learning_rate=result.rate,
        seed=result.seed,
        status="done" if done else "failed",
        error=None if done else f"{result.train['status']}: {told}",
        engine=ENGINE,
        seconds=_seconds(result),
        adapter_bytes=None if result.run["peft_config"] is None else result.train.get("file_size"),
        memory={"train": memory} if isinstance(reserved, int) else {},
        environment=_environment(result),
    )


def _score(result: _Result) -> TaskScore:
    return TaskScore(metrics=result.test, answers=(), seconds=0.0)


def _seconds(result: _Result) -> float | None:
    """Return the seconds of its training steps, without its evaluations."""
    found = [each["train time"] for each in result.steps if _is_number(each.get("train time"))]
    return math.fsum(found) if found else None


def _probe(result: _Result) -> Probe | None:
    """Return what it cost alone, which is how each experiment ran; None where it is not said.

    Memory is left out: what an experiment states is what the allocator reserved, the model
    included.
    """
    seconds, steps = _seconds(result), result.config.get("max_steps")
    tokens = next((each["train total tokens"] for each in reversed(result.steps)
                   if _is_number(each.get("train total tokens"))), None)  # fmt: skip
    if not seconds or not isinstance(steps, int) or steps < 1 or tokens is None:
        return None
    return Probe(
        seconds_per_step=seconds / steps,
        tokens_per_second=tokens / seconds,
        peak_memory_bytes=None,
        num_steps=steps,
        engine=ENGINE,
    )


def _setting(results: Sequence[_Result]) -> dict[str, Any]:
    config = results[0].config
    steps = {each.config.get("max_steps") for each in results}
    bases = {
        each.train["num_total_params"] - each.train["num_trainable_params"]
        for each in results
        if (each.run["peft_config"] or {}).get("peft_type") == "LORA"
        and isinstance(each.train.get("num_total_params"), int)
    }
    # Shares of base and adapters mean nothing where the base itself was trained.
    whole = any(each.run["peft_config"] is None for each in results)
    return {
        "task": "causal",
        "base_parameters": bases.pop() if len(bases) == 1 and not whole else None,
        "steps_per_trial": steps.pop() if len(steps) == 1 else None,
        "environment": _environment(results[0]),
        "study": {"model": {"name": config.get("model_id"), "revision": _revision(results)}},
    }


def _revision(results: Sequence[_Result]) -> str | None:
    found = {(each.meta.get("model_info") or {}).get("sha") for each in results}
    only = found.pop() if len(found) == 1 else None
    return only if isinstance(only, str) else None


def _environment(result: _Result) -> dict[str, Any]:
    system = result.meta.get("system_info") or {}
    packages = result.meta.get("package_info") or {}
    versions = {
        key.removesuffix("-version"): value
        for key, value in packages.items()
        if key.endswith("-version")
    }
    platform = " ".join(str(system[key]) for key in ("system", "machine") if key in system)
    return {"platform": platform or None, "gpu": system.get("accelerator", system.get("gpu")),
            **versions}  # fmt: skip


def _remarks(results: Sequence[_Result]) -> Iterator[str]:
    yield (
        "The files hold figures of the test set and no losses of its rows: they are told as a "
        "task, without verdicts, and recommend has nothing to compare."
    )
    if len({each.seed for each in results}) == 1:
        yield f"Every result is of seed {results[0].seed}: how much seeds differ is not known."
    if len({json.dumps(_compared(each), sort_keys=True) for each in results}) > 1:
        yield "Some results were trained otherwise than others (steps, batch, data type or prompt)."


def _compared(result: _Result) -> list[Any]:
    keys = ("max_steps", "batch_size", "dtype", "max_seq_length", "query_template")
    return [result.config.get(key) for key in keys]


def _tests(metrics: Mapping[str, Any]) -> list[str]:
    return [key for key in metrics if isinstance(key, str) and key.startswith(_TEST)]


def _is_number(value: Any) -> TypeGuard[float]:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)
