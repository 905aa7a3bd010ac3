"""How does a model compute its attention another way for a while?"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def attention_as(model: Any, name: str) -> Iterator[bool]:
    """Let a model attend by another of transformers' implementations, whatever parts it has.

    Args:
        model: the model; it has the implementations that it had again afterwards.
        name: of the implementation, such as ``eager``.

    Yields:
        whether the model took it.
    """
    before = [(config, config._attn_implementation) for config in _configurations(model.config)]
    model.set_attn_implementation(name)
    try:
        yield model.config.get_text_config()._attn_implementation == name
    finally:
        for config, kept in before:  # outer ones first: they set those within, too
            config._attn_implementation = kept


def _configurations(config: Any) -> Iterator[Any]:
    """Yield a configuration and those within it."""
    yield config
    for name in config.sub_configs:
        if (part := getattr(config, name, None)) is not None:
            yield from _configurations(part)
