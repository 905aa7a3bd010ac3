"""What can be measured beside the loss on the test rows, and how is it asked for? No torch."""

from dataclasses import asdict, dataclass
from typing import Any

from loratlas.data.spec import DataFormat

LOSS = "loss"
"""The loss on the test rows; every study has it, whether it is named or not."""
FORGETTING = "forgetting"
HARNESS = "lm_eval:"
"""What stands before the name of a task of lm-evaluation-harness."""
DEMO_TEXT = "demo:text"
"""New documents in the manner of the text that the bundled model was pretrained on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskMeasure:
    """A task of lm-evaluation-harness, with its own prompt, answer filters and metrics."""

    task: str
    """``lm_eval:`` and the name that lm_eval knows the task by."""
    source: str | None = None
    """Local file with the questions; without it, the data set that the task names."""
    rows: int | None = None
    """Questions that are asked, the first ones; without it, all of them."""
    shots: int = 0
    """Solved examples before each question."""
    max_new_tokens: int = 256
    """Most tokens of a generated answer."""
    batch: int = 8
    """Prompts of one forward pass; the answers do not depend on it."""

    @property
    def name(self) -> str:
        """The name under which results are kept: ``lm_eval:gsm8k``."""
        return self.task

    @property
    def harness_name(self) -> str:
        """The name that lm_eval knows the task by: ``gsm8k``."""
        return self.task.removeprefix(HARNESS)

    def to_json(self) -> dict[str, Any]:
        """Return everything that can change a result, as plain data."""
        data = asdict(self)
        del data["batch"]
        return data


@dataclass(frozen=True, kw_only=True, slots=True)
class ForgettingMeasure:
    """The loss on general text, before training and after: what fine-tuning costs elsewhere."""

    source: str = DEMO_TEXT
    """Hub name, one local file, or ``demo:text``."""
    format: DataFormat = "text"
    """How a row is read; every token of it is scored."""
    rows: int = 200
    """Rows that are drawn from the source's own test split, or from all it has."""
    max_length: int = 512
    """Tokens of a row; what is longer is cut, also where the model ends, and counted."""

    @property
    def name(self) -> str:
        """The name under which results are kept."""
        return FORGETTING

    def to_json(self) -> dict[str, Any]:
        """Return everything that can change a result, as plain data."""
        return {"task": FORGETTING, **asdict(self)}


Measure = TaskMeasure | ForgettingMeasure
"""What is measured of a trained model beside its loss."""
