"""How is a task of lm_eval built, so that nothing is found wrong with it after training?

The task's own configuration is used: its prompt, its answer filters, its metrics. With a
`source` only its data set is replaced, by the rows of a local file, so that it works offline.

This file imports lm_eval; import it only when a task is asked for.
"""

import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import datasets
import jinja2.meta
import lm_eval.api.task
from evaluate import loading as evaluate_loading
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from loratlas.anatomy.sites import digest_of
from loratlas.data.files import Row, read_file
from loratlas.errors import DataError, StudyError, did_you_mean
from loratlas.measure.measures import TaskMeasure
from loratlas.measure.task_index import find_task
from loratlas.train.base import quiet

SEED = 0
"""Of the draw of solved examples, and of answers where a task samples them."""
_SPLIT = "test"
_CODE_OF_THE_HUB = "a figure of it is computed by a program of the hub"
_FIELDS = ("doc_to_text", "doc_to_target", "doc_to_choice")


def build_task(measure: TaskMeasure, *, root: Path) -> Any:
    """Return lm_eval's task, with its data read and every question found to make a prompt.

    Args:
        measure: what the study asks for.
        root: folder that relative paths start at, the one of the study file.

    Raises:
        StudyError: lm_eval is not installed or knows no such task, or its data cannot be replaced.
        DataError: its data set cannot be read, or does not fit the task.
    """
    path = find_task(measure.harness_name)
    with harness_quiet():
        config = _configuration(measure, path)
        rows = None if measure.source is None else read_file(measure.source, root=root)
        if rows is not None:
            config |= _local(measure, config, rows)
        task = _built(measure, config)
        task.set_config("num_fewshot", measure.shots)
        task.set_fewshot_seed(SEED)
        _check_questions(measure, task, rows)
    return task


def questions(measure: TaskMeasure, task: Any) -> list[Mapping[str, Any]]:
    """Return the questions that are asked, as the task sees them, in order."""
    return [doc for _, doc in task.doc_iterator(limit=measure.rows)]


def task_digest(measure: TaskMeasure, asked: Sequence[Mapping[str, Any]]) -> str:
    """Return the SHA-256 over all that a task's figures depend on beside the model."""
    told = measure.to_json()
    del told["source"]  # what it holds counts, not where it lies
    text = json.dumps(asked, sort_keys=True, default=str)
    held = sha256(text.encode()).hexdigest()
    return digest_of({**told, "lm_eval": version("lm_eval"), "questions": held})


@contextmanager
def harness_quiet() -> Iterator[None]:
    """Keep what lm_eval and datasets log, draw and warn of out of the terminal a while."""
    logger = logging.getLogger("lm_eval")
    level, bar = logger.level, lm_eval.api.task.tqdm
    bars = datasets.are_progress_bars_disabled()
    logger.setLevel(logging.CRITICAL)
    datasets.disable_progress_bars()
    lm_eval.api.task.tqdm = _without_bar
    try:
        with quiet(), warnings.catch_warnings(action="ignore"), _no_code_of_the_hub():
            yield
    finally:
        lm_eval.api.task.tqdm = bar
        logger.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()


@contextmanager
def _no_code_of_the_hub() -> Iterator[None]:
    """Keep the package evaluate from fetching programs and running them, a while."""
    factory = evaluate_loading.evaluation_module_factory
    evaluate_loading.evaluation_module_factory = _refuse_code
    try:
        yield
    finally:
        evaluate_loading.evaluation_module_factory = factory


def _refuse_code(path: str, *_: Any, **__: Any) -> NoReturn:
    raise StudyError(f"{_CODE_OF_THE_HUB} ({path}), which is never run")


def _without_bar(items: Sequence[Any], **_: Any) -> Sequence[Any]:
    return items


def _local(measure: TaskMeasure, config: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """Return what takes the place of a task's data set: the rows, as its only split.

    Solved examples are the task's own where its file holds them. Otherwise they come from the
    same rows; lm_eval leaves the question itself out of them.
    """
    if "class" in config:
        raise StudyError(
            f"measures: {measure.name} reads its data by code of its own; a source cannot take "
            "their place"
        )
    held = datasets.DatasetDict({_SPLIT: datasets.Dataset.from_list(_alike(rows))})
    shots = config.get("fewshot_config") or {}
    has_own = "samples" in shots
    return {
        "custom_dataset": lambda **_: held,
        "dataset_path": None,
        "dataset_name": None,
        "dataset_kwargs": None,
        "training_split": None,
        "validation_split": None,
        "test_split": _SPLIT,
        "fewshot_split": None if has_own else _SPLIT,
        "fewshot_config": shots if has_own else {**shots, "split": _SPLIT},
    }


def _alike(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return rows as plain data; a key that one of them lacks would silently become null."""
    expected = rows[0].values.keys()
    for row in rows:
        if missing := [key for key in expected if key not in row.values]:
            keys = list(map(str, row.values))
            near = did_you_mean(str(missing[0]), keys)
            raise DataError(
                f'{row.where}: no key "{missing[0]}", which {rows[0].where} has{near}; '
                f"the row holds {', '.join(keys[:12])}"
            )
    return [dict(row.values) for row in rows]


def _configuration(measure: TaskMeasure, path: Path) -> dict[str, Any]:
    """Return what a task's file says, its functions imported."""
    try:
        config: dict[str, Any] = load_yaml(path, resolve_func=True)
    except Exception as error:  # a task's own code may fail as it likes, for want of a package say
        raise StudyError(f"measures: {measure.name} cannot be read: {_reason(error)}") from error
    return config


def _built(measure: TaskMeasure, config: dict[str, Any]) -> Any:
    try:
        loaded = TaskManager(include_defaults=False).load([config])
    # lm_eval, datasets, jinja and the HTTP client each raise their own; whatever it was, the
    # request ends here, and its first line says why
    except Exception as error:
        reason = _reason(error)
        if measure.source is not None:
            needs = ", ".join(sorted(_needed(config)))
            raise DataError(
                f"measures: {measure.name}: {measure.source} does not fit the task: {reason}"
                + (f"; the task reads: {needs}" if needs else "")
            ) from error
        raise DataError(
            f"measures: {measure.name}: its data set {config.get('dataset_path')} cannot be "
            f"loaded: {reason}; `source` takes a local file in its place"
        ) from error
    (task,) = loaded["tasks"].values()
    _require_figures(measure, task)
    return task


def _require_figures(measure: TaskMeasure, task: Any) -> None:
    """Refuse a figure that lm_eval has no function for: it would ask the hub for a program."""
    if task.config.process_results is not None:
        return
    for name, compute in getattr(task, "_metric_fn_list", {}).items():
        if compute is None:
            raise StudyError(
                f"measures: {measure.name}: {_CODE_OF_THE_HUB} ({name}), which is never run"
            )


def _check_questions(measure: TaskMeasure, task: Any, rows: Sequence[Row] | None) -> None:
    """Refuse too few questions, and any that the task cannot make a prompt and an answer of."""
    there = len(task.eval_docs)
    if measure.rows is not None and measure.rows > there:
        raise DataError(
            f"measures: {measure.name}: asks {measure.rows:,} questions, and there are {there:,}"
        )
    needed = _needed(task.config)
    for place, doc in enumerate(questions(measure, task)):
        where = rows[place].where if rows and len(rows) == there else f"question {place + 1}"
        try:
            empty = [key for key in needed if key in doc and doc[key] is None]
            if empty:
                raise ValueError(f'"{empty[0]}" is null')
            task.doc_to_text(doc), task.doc_to_target(doc)
        except Exception as error:  # templates and functions of tasks raise whatever they like
            raise DataError(
                f"measures: {measure.name}: {where} does not fit the task: {_reason(error)}"
            ) from error


def _needed(config: Any) -> set[str]:
    """Return the keys of a row that the templates of a task name."""
    found: set[str] = set()
    for field in _FIELDS:
        template = config.get(field) if isinstance(config, dict) else None
        template = template if template is not None else getattr(config, field, None)
        if not isinstance(template, str):
            continue
        if template.isidentifier():
            found.add(template)
        else:
            found |= jinja2.meta.find_undeclared_variables(jinja2.Environment().parse(template))
    return found


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    first = lines[0][:200] if lines else type(error).__name__
    return f"{first} is missing" if isinstance(error, KeyError) else first.rstrip(".")
