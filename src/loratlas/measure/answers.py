"""What came out of a task: an answer per question, and the task's own figures. No torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a model gave to one question.

    Attributes:
        question: its place among the task's questions, from 0.
        prompt_digest: SHA-256 of the prompt, solved examples included; of the first one where
            every choice has its own.
        truncated: whether the prompt was cut on its left to fit the model.
        text: the generated answer, None where nothing is generated.
        log_likelihoods: ln p of each choice in nats, empty where an answer is generated.
        extracted: what each of the task's filters took from the text, by the filter's name.
        metrics: the question's own figures, by metric.
    """

    question: int
    prompt_digest: str
    truncated: bool
    text: str | None = None
    log_likelihoods: tuple[float, ...] = ()
    extracted: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskScore:
    """What a model gave to all questions of a task.

    Attributes:
        metrics: the task's figures, aggregated as the task says; None where one is no number.
        answers: one per question, in the order asked.
        seconds: wall time.
    """

    metrics: Mapping[str, float | None]
    answers: tuple[Answer, ...]
    seconds: float

    @property
    def num_truncated(self) -> int:
        """Questions whose prompt was cut."""
        return sum(answer.truncated for answer in self.answers)


def metric_name(metric: str, filter_name: str) -> str:
    """Return how a figure is called: ``exact_match,strict-match``, or ``acc`` with no filter."""
    return metric if filter_name == "none" else f"{metric},{filter_name}"


def plain(value: Any) -> Any:
    """Return a figure as JSON knows it; what is no finite number is None."""
    if isinstance(value, bool | str) or value is None:
        return value
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, int | float):
        return value if math.isfinite(value) else None
    return str(value)
