"""How well does a model answer the questions of a task of lm_eval?

lm_eval makes the prompts, extracts the answers and computes the figures; the model in memory,
adapters included, is lent to it. Nothing global is left changed: random states, the tokenizer,
the model's mode.

This file imports lm_eval; import it only when a task is asked for.
"""

import copy
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM

from loratlas.errors import ModelError, NotYetError, StudyError, TrialError
from loratlas.measure.answers import Answer, TaskScore, metric_name, plain
from loratlas.measure.harness_task import (
    SEED,
    build_task,
    harness_quiet,
    questions,
    task_digest,
)
from loratlas.measure.measures import TaskMeasure
from loratlas.train.base import Base, max_positions

# What tasks call the bound on an answer's tokens, which the study sets instead.
_BOUNDS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens", "max_length")


@dataclass(frozen=True, kw_only=True)
class PreparedTask:
    """A task that is ready to be put to any model of a study.

    Attributes:
        measure: what the study asks for.
        task: lm_eval's task.
        digest: SHA-256 over all that its figures depend on beside the model.
        num_questions: questions that are asked.
    """

    measure: TaskMeasure
    task: Any
    digest: str
    num_questions: int

    @property
    def name(self) -> str:
        """The name under which results are kept."""
        return self.measure.name

    def take(self, model: Any, base: Base) -> TaskScore:
        """Put the task to a model.

        Args:
            model: the base's own model, or one with adapters in it.
            base: its tokenizer, device and limits.

        Raises:
            TrialError: the model gives log-likelihoods that are no numbers.
        """
        began = time.perf_counter()
        with harness_quiet(), _own_randomness(base.device), _settings_kept(model):
            lent = _Lent(model, base, self.measure)
            found = evaluate(
                lent,
                {"tasks": {self.measure.harness_name: self.task}},
                limit=self.measure.rows,
                bootstrap_iters=0,
            )
        samples = found["samples"][self.measure.harness_name]
        answers = tuple(_answers(samples, lent))
        _require_numbers(self.name, answers)
        return TaskScore(
            metrics=_figures(found["results"][self.measure.harness_name]),
            answers=answers,
            seconds=time.perf_counter() - began,
        )


def prepare_task(measure: TaskMeasure, base: Base, *, root: Path) -> PreparedTask:
    """Build a task, and refuse what could not be measured after training.

    Raises:
        StudyError: lm_eval knows no such task, or a prompt would have no room beside its answer.
        DataError: the task's data cannot be read, or do not fit it.
        ModelError: the tokenizer has no end-of-text token, which tells where an answer ends.
        NotYetError: the base is no causal language model, or the task needs one that sees or hears.
    """
    _require_causal(measure, base)
    with harness_quiet(), _own_randomness(base.device):
        task = build_task(measure, root=root)
        asked = questions(measure, task)
    if getattr(task, "MULTIMODAL", False) or getattr(task, "UNSAFE_CODE", False):
        raise NotYetError(
            f"measures: {measure.name} shows pictures, plays sounds, or runs the code that it is "
            "answered with; this version puts tasks in text only"
        )
    limit = max_positions(base.model)
    generates = task.OUTPUT_TYPE == "generate_until"
    if generates and limit is not None and measure.max_new_tokens >= limit:
        raise StudyError(
            f"measures: {measure.name}: max_new_tokens {measure.max_new_tokens} leaves no room for "
            f"a prompt: {base.ref.name} reads at most {limit} tokens, prompt and answer together"
        )
    return PreparedTask(
        measure=measure,
        task=task,
        digest=task_digest(measure, asked),
        num_questions=len(asked),
    )


def _require_causal(measure: TaskMeasure, base: Base) -> None:
    if base.task != "causal":
        raise NotYetError(
            f"measures: {measure.name} is put to causal language models; {base.ref.name} is a "
            f"{base.task} model"
        )
    if base.tokenizer.eos_token_id is None:
        raise ModelError(
            f"{base.ref.name}: its tokenizer has no end-of-text token, and {measure.name} cannot "
            "tell where an answer ends"
        )


class _Lent(HFLM):  # type: ignore[misc]
    """A model in memory, as lm_eval takes it: no bars, bounded answers, log-softmax in fp32."""

    def __init__(self, model: Any, base: Base, measure: TaskMeasure) -> None:
        self._max_new_tokens = measure.max_new_tokens
        tokenizer = copy.deepcopy(base.tokenizer)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token_id = base.pad_id
        # HFLM ties weights anew, which would tear adapters of tied sites apart.
        model.tie_weights = lambda: None
        try:
            super().__init__(
                pretrained=model,
                tokenizer=tokenizer,
                backend="causal",
                batch_size=measure.batch,
                max_length=max_positions(model),
                softmax_dtype="float32",
            )
        finally:
            del model.tie_weights

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = True) -> Any:
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

    def _loglikelihood_tokens(
        self, requests: Sequence[Any], disable_tqdm: bool = True, override_bs: int | None = None
    ) -> Any:
        del disable_tqdm  # callers leave it at their own default
        return super()._loglikelihood_tokens(requests, disable_tqdm=True, override_bs=override_bs)

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = True) -> Any:
        return super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm)

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = True) -> Any:
        for request in requests:
            settings = request.args[1]
            for key in _BOUNDS:
                settings.pop(key, None)
            settings["max_gen_toks"] = self._max_new_tokens
        return super().generate_until(requests, disable_tqdm=disable_tqdm)

    def cuts(self, arguments: Sequence[Any]) -> bool:
        """Return whether a request does not fit, so that its prompt is cut on the left."""
        prompt, rest = arguments[0], arguments[1] if len(arguments) > 1 else None
        if isinstance(rest, dict):
            return bool(len(self.tok_encode(prompt)) > self.max_length - self._max_new_tokens)
        if rest is None:  # a text that is scored whole goes through in windows
            return False
        context, continuation = self._encode_pair(prompt, rest)
        # The last token is predicted, and not read.
        return bool(len(context) + len(continuation) - 1 > self.max_length)


@contextmanager
def _own_randomness(device: torch.device) -> Iterator[None]:
    """Seed every random state a while, and put them back: a study's trials know nothing of it."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(SEED)
            np.random.seed(SEED)  # noqa: NPY002
            random.seed(SEED)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002


@contextmanager
def _settings_kept(model: Any) -> Iterator[None]:
    """Put a model's mode and its bound on new tokens back; that bound would outrank the study's."""
    was_training, settings = model.training, model.generation_config
    bound, settings.max_new_tokens = settings.max_new_tokens, None
    try:
        with torch.no_grad():
            yield
    finally:
        settings.max_new_tokens = bound
        model.train(was_training)


def _answers(samples: Sequence[Mapping[str, Any]], lent: _Lent) -> Iterator[Answer]:
    """Yield one answer a question; lm_eval keeps one sample for each question and filter."""
    by_question: dict[int, list[Mapping[str, Any]]] = {}
    for sample in samples:
        by_question.setdefault(sample["doc_id"], []).append(sample)
    for question, group in sorted(by_question.items()):
        first, arguments = group[0], group[0]["arguments"]
        generates = isinstance(arguments[0][-1], dict)
        yield Answer(
            question=question,
            prompt_digest=sha256(str(arguments[0][0]).encode()).hexdigest(),
            truncated=any(lent.cuts(each) for each in arguments),
            text=first["resps"][0][0] if generates else None,
            log_likelihoods=() if generates else tuple(_log_likelihoods(first["resps"])),
            extracted=_extracted(group) if generates else {},
            metrics={
                metric_name(metric, sample["filter"]): plain(sample[metric])
                for sample in group
                for metric in sample["metrics"]
            },
        )


def _log_likelihoods(responses: Sequence[Sequence[Any]]) -> Iterator[float]:
    for response in responses:
        first = response[0]  # (ln p, whether greedy decoding gives it), or ln p of a whole text
        yield float(first[0] if isinstance(first, tuple) else first)


def _extracted(group: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {sample["filter"]: str(sample["filtered_resps"][0]) for sample in group}


def _require_numbers(name: str, answers: Sequence[Answer]) -> None:
    wrong = [a.question for a in answers if not np.isfinite(a.log_likelihoods).all()]
    if wrong:
        raise TrialError(
            f"{name}: the log-likelihoods of {len(wrong)} of {len(answers)} questions are no "
            f"numbers, first of question {wrong[0] + 1}"
        )


def _figures(results: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the aggregated figures of a task; lm_eval mixes them with names and errors."""
    figures = {}
    for key, value in results.items():
        metric, comma, filter_name = key.partition(",")
        if comma and not metric.endswith("_stderr"):
            number = plain(value)
            usable = isinstance(number, int | float)
            figures[metric_name(metric, filter_name)] = float(number) if usable else None
    return figures
