"""How do base and adapter become one model, whole on disk?"""

from pathlib import Path
from typing import Any

from peft import PeftModel

from loratlas.export.logits import logits, require_equal
from loratlas.export.subject import Subject
from loratlas.train.adapters import saved_adapters
from loratlas.train.base import Base, quiet
from loratlas.train.objective import auto_class


def merge(base: Base, subject: Subject, folder: Path) -> float:
    """Write base + adapter as a model of transformers, with its tokenizer.

    Args:
        base: the base; it is changed, and serves for nothing else afterwards.
        subject: what is merged into it.
        folder: where the model goes.

    Returns:
        the largest difference of its logits, read back, from those of base and adapter.

    Raises:
        VerificationError: it does not compute the same.
    """
    with saved_adapters(base, subject.folder, subject.placement) as model:
        expected = logits(base, model)
    with quiet():
        model = PeftModel.from_pretrained(base.model, str(subject.folder))
        whole: Any = model.merge_and_unload(safe_merge=True)
        whole.config.use_cache = True  # switched off for training
        whole.save_pretrained(folder)
        base.tokenizer.save_pretrained(folder)
        again = auto_class(base.task).from_pretrained(folder, dtype=whole.dtype)
    return require_equal(base, expected, logits(base, again.to(base.device)), "the merged model")
