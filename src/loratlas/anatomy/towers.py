"""Which parts of a model do tokens never pass through, because they read images or sound?

A tower is a model within the model, with a configuration of its own, none of whose modules
runs when the model is given tokens. Its maps are `other`, outside every stack: a rule that
speaks of the language model's attention means no tower, and layers are counted without it.
What stands between a tower and the language model is not used by tokens either, and is
`other` with that reason.
"""

from collections.abc import Mapping

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel


def silent_towers(model: PreTrainedModel, ran: frozenset[str]) -> Mapping[str, str]:
    """Return what each tower reads, by its path.

    Args:
        model: the whole model.
        ran: paths of the modules that ran when the model was given tokens.

    Returns:
        The configuration's own word: ``vision`` for the part under ``vision_config``.
    """
    towers: dict[str, str] = {}
    for path, module in model.named_modules():
        inside = any(path.startswith(f"{known}.") for known in towers)
        if path and not inside and _is_tower(path, module, ran):
            towers[path] = _kind(model.config, getattr(module, "config", None))
    return towers


def _is_tower(path: str, module: nn.Module, ran: frozenset[str]) -> bool:
    if not isinstance(module, PreTrainedModel) or path in ran:
        return False
    return not any(known.startswith(f"{path}.") for known in ran)


def _kind(whole: PreTrainedConfig, part: object) -> str:
    """Return the word under which a configuration holds the part: ``vision``, ``audio``."""
    for name in whole.sub_configs:
        held = getattr(whole, name, None)
        if held is part:
            return str(name).removesuffix("_config")
        if isinstance(held, PreTrainedConfig) and held.sub_configs:
            inner = _kind(held, part)
            if inner != _UNKNOWN:
                return inner
    return _UNKNOWN


_UNKNOWN = "silent"
