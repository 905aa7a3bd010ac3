"""What is this model made of? A name, a folder or a configuration → `Anatomy`.

No weight is loaded. What was read once is cached; then neither torch nor transformers is
imported.
"""

from dataclasses import replace
from pathlib import Path

from loratlas.anatomy import cache as stored
from loratlas.anatomy.sites import Anatomy
from loratlas.anatomy.source import Source, find_source
from loratlas.errors import ModelError


def read(
    model: str | Path,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    num_labels: int | None = None,
    cache: bool = True,
) -> Anatomy:
    """Return the anatomy of a model, from its configuration alone.

    Args:
        model: name on the hub, folder with a ``config.json``, path of such a file, or
            bundled model such as ``demo:gpt2``.
        revision: branch, tag or commit on the hub.
        trust_remote_code: whether code that comes with the model may run.
        num_labels: classes of a sequence classification head; None reads the language model.
        cache: whether to look in the cache and to write to it.

    Raises:
        ModelError: the model cannot be found, or cannot be built from its configuration.
    """
    source = find_source(model, revision)
    if source.kernels and not trust_remote_code:
        raise ModelError(
            f"{source.name}: its configuration asks for code on the hub ({source.kernels[0]}); "
            "trust_remote_code allows it to run"
        )
    if num_labels is not None:
        source = _classifier(source, num_labels)
    # Code that comes with a model is no part of the key, so what it built is not kept.
    key = None if not cache or (trust_remote_code and source.has_code) else _key(source)
    if key is not None and (known := stored.load(key, source.name)) is not None:
        return known
    anatomy = _read(source, revision, trust_remote_code)
    if key is not None:
        stored.store(key, anatomy)
    return anatomy


def _classifier(source: Source, num_labels: int) -> Source:
    """Return a source whose configuration names the sequence classifier of its type."""
    # Imported here: only classification needs the names, and they cost an import.
    from transformers.models.auto import modeling_auto

    names = modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    model_type = source.config.get("model_type")
    if not isinstance(model_type, str) or model_type not in names:
        raise ModelError(
            f"{source.name}: transformers has no sequence classifier for model type {model_type}"
        )
    labels = {str(index): f"LABEL_{index}" for index in range(num_labels)}
    config = source.config | {"architectures": [names[model_type]], "id2label": labels}
    return replace(source, config=config)


def _key(source: Source) -> str:
    return stored.cache_key(source.config)


def _read(source: Source, revision: str | None, trust_remote_code: bool) -> Anatomy:
    # Imported here: describing a known model needs neither torch nor transformers.
    from loratlas.anatomy.build import build, quiet
    from loratlas.anatomy.survey import survey

    with quiet():
        built = build(source, revision=revision, trust_remote_code=trust_remote_code)
        return survey(source.name, built)
