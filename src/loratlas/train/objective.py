"""What does a base model predict, and which of transformers' classes does that?

A study says what it wants by its data: rows with a class make a sequence classifier of any base.
Otherwise the base decides: the class that its configuration names, else sequence to sequence,
masked, causal, in the order in which `loratlas.anatomy` looks.
"""

from typing import Any

import transformers

from loratlas.data.spec import DataFormat, Task
from loratlas.errors import ModelError

_AUTO_CLASSES: dict[Task, Any] = {
    "causal": transformers.AutoModelForCausalLM,
    "masked": transformers.AutoModelForMaskedLM,
    "seq2seq": transformers.AutoModelForSeq2SeqLM,
    "classification": transformers.AutoModelForSequenceClassification,
}
_MAPPINGS: dict[Task, Any] = {
    "seq2seq": transformers.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    "masked": transformers.MODEL_FOR_MASKED_LM_MAPPING,
    "causal": transformers.MODEL_FOR_CAUSAL_LM_MAPPING,
}


def task_of(config: Any, name: str, data_format: DataFormat | None = None) -> Task:
    """Return what a base model is trained to predict.

    Args:
        config: its transformers configuration.
        name: what to call it in a message.
        data_format: how the study reads its rows.

    Raises:
        ModelError: it is no language model.
    """
    if data_format == "classification":
        return "classification"
    named = (config.architectures or [""])[0]
    for task, mapping in _MAPPINGS.items():
        if type(config) in mapping and _is_of(named, mapping[type(config)]):
            return task
    for task, mapping in _MAPPINGS.items():
        if type(config) in mapping:
            return task
    raise ModelError(
        f"{name}: {config.model_type} is no language model that transformers "
        f"{transformers.__version__} trains: neither causal, masked nor sequence to sequence"
    )


def auto_class(task: Task) -> Any:
    """Return the class of transformers that loads a base for a task."""
    return _AUTO_CLASSES[task]


def _is_of(named: str, classes: Any) -> bool:
    several = classes if isinstance(classes, list | tuple) else (classes,)
    return named in [cls.__name__ for cls in several]
