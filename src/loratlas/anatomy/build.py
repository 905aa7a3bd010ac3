"""Which class does a configuration describe, and what does it look like without weights?"""

import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.initialization import meta_device_safe_creation_ops, no_init_weights
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import logging as library_logging

from loratlas.anatomy.source import Source
from loratlas.errors import ModelError, did_you_mean

# The order in which a model type without a named class is looked up.
_TASKS = (
    ("AutoModelForSeq2SeqLM", modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES),
    ("AutoModelForMaskedLM", modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES),
    ("AutoModelForCausalLM", modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
)

_NUM_TOKENS, _NUM_DECODER_TOKENS = 6, 4
# A layer is a module that has to be made, and an expert may be one. Doge has 16,384 experts.
_MOST = {"layer": 10_000, "layers": 10_000, "depth": 10_000, "experts": 100_000}


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the library's remarks about a model that is never trained or run to itself."""
    before = library_logging.get_verbosity()
    library_logging.set_verbosity(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        library_logging.set_verbosity(before)


def build(source: Source, *, revision: str | None, trust_remote_code: bool) -> PreTrainedModel:
    """Return the model that a configuration describes, on the meta device.

    Args:
        source: the configuration.
        revision: revision on the hub, for a model with code of its own.
        trust_remote_code: whether code that comes with the model may run.

    Raises:
        ModelError: the type is unknown, needs code of its own, or does not build.
    """
    name, model_type = source.name, source.config.get("model_type")
    if not isinstance(model_type, str):
        raise ModelError(f"{name}: its configuration has no model_type, such as gpt2 or llama")
    _refuse_too_many(name, source.config)
    if model_type not in CONFIG_MAPPING:
        _require_code(source, model_type, trust_remote_code)
        return _remote_model(source, revision)
    try:
        config_class = CONFIG_MAPPING[model_type]
        config = config_class.from_dict(config_class._decode_special_floats(dict(source.config)))
        return _library_model(_library_class(name, config), config)
    except ModelError:
        raise
    except Exception as error:  # a configuration can be wrong in any way
        raise ModelError(f"{name}: no {model_type} can be built from it: {_line(error)}") from error


def _refuse_too_many(name: str, config: Mapping[str, Any]) -> None:
    """Refuse a number of modules that would take hours to build, even without weights."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            _refuse_too_many(name, value)
        most = _MOST.get(key.rpartition("_")[2])
        if most is not None and type(value) is int and value > most:
            raise ModelError(f"{name}: {key} is {value:,}; at most {most:,} are read")


def _require_code(source: Source, model_type: str, trust_remote_code: bool) -> None:
    """Raise unless code that comes with the model is there and may run."""
    if not source.has_code:
        raise ModelError(
            f"{source.name}: transformers {transformers.__version__} knows no model_type"
            f" {model_type}{did_you_mean(model_type, CONFIG_MAPPING)}"
        )
    if not trust_remote_code:
        raise ModelError(
            f"{source.name}: its model_type {model_type} needs code that comes with the model;"
            " trust_remote_code allows it to run"
        )


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}…"


def _library_class(name: str, config: PreTrainedConfig) -> type[PreTrainedModel]:
    """Return the class that the configuration names, else the one for its type."""
    for architecture in config.architectures or ():
        found = getattr(transformers, str(architecture), None)
        if inspect.isclass(found) and issubclass(found, PreTrainedModel):
            return found
    for _, names in _TASKS:
        if config.model_type in names:
            found = getattr(transformers, names[config.model_type])
            if inspect.isclass(found) and issubclass(found, PreTrainedModel):
                return found
    raise ModelError(
        f"{name}: transformers {transformers.__version__} has no language model"
        f" of type {config.model_type}"
    )


def _library_model(cls: type[PreTrainedModel], config: PreTrainedConfig) -> PreTrainedModel:
    config = _own_part(cls, config)
    _prefer_visible_steps(config)
    with no_init_weights(), torch.device("meta"), meta_device_safe_creation_ops():
        model = cls(config)
    return _ready(model)


def _own_part(cls: type[PreTrainedModel], config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the part of a configuration that a class is made from: mostly all of it."""
    expected = cls.config_class
    if expected is None or isinstance(config, expected):
        return config
    return next((part for part in _sub_configs(config) if isinstance(part, expected)), config)


def _sub_configs(config: PreTrainedConfig) -> list[PreTrainedConfig]:
    parts = (getattr(config, name, None) for name in config.sub_configs)
    return [part for part in parts if isinstance(part, PreTrainedConfig)]


def _remote_model(source: Source, revision: str | None) -> PreTrainedModel:
    task = next((task for task, _ in _TASKS if task in source.config["auto_map"]), "AutoModel")
    try:
        config = transformers.AutoConfig.from_pretrained(
            source.location, revision=revision, trust_remote_code=True
        )
        with no_init_weights(), torch.device("meta"):
            model: PreTrainedModel = getattr(transformers, task).from_config(
                config, trust_remote_code=True, attn_implementation="eager"
            )
    except Exception as error:  # code that comes with a model can fail in any way
        raise ModelError(
            f"{source.name}: the code that comes with it does not build it: {_line(error)}"
        ) from error
    return _ready(model)


def _ready(model: PreTrainedModel) -> PreTrainedModel:
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.is_meta:  # made by a constructor that knows no device
                setattr(module, name, nn.Parameter(parameter.to("meta")))
    model.tie_weights()
    model.train(False)
    return model


def _prefer_visible_steps(config: PreTrainedConfig) -> None:
    """Ask for attention and experts as plain steps: fused kernels hide what they do."""
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    for part in (config, *_sub_configs(config)):
        part.use_cache = False


def example_inputs(model: PreTrainedModel) -> Iterator[dict[str, Tensor]]:
    """Yield token ids for each stream that the forward pass takes, the usual form first.

    Shapes are (sequences, tokens); models of several codebooks take one sequence for each,
    and models of several languages the index of one per sequence.
    """
    accepted = inspect.signature(model.forward).parameters
    inputs = {"input_ids": torch.full((1, _NUM_TOKENS), 5)}
    if "decoder_input_ids" in accepted:
        inputs["decoder_input_ids"] = torch.full((1, _NUM_DECODER_TOKENS), 5)
    yield inputs
    if "lang_ids" in accepted:
        yield {**inputs, "lang_ids": torch.zeros(1, dtype=torch.long)}
    decoder = getattr(model.config, "decoder", model.config)
    num_codebooks = getattr(decoder, "num_codebooks", 1)
    if num_codebooks > 1:
        several = next(reversed(inputs))
        yield {**inputs, several: inputs[several].repeat(num_codebooks, 1)}


def encoder_states(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return states of an encoder, shape (1, tokens, width), where a decoder takes them.

    A model with an encoder of its own takes what that gave (``encoder_outputs``) instead of
    running it, and is given none.
    """
    accepted = inspect.signature(model.forward).parameters
    config: Any = model.config
    own = getattr(config, "hidden_size", 0)
    width = getattr(config, "cross_attention_hidden_size", None) or own
    shape = (1, _NUM_DECODER_TOKENS, width)
    names = ["encoder_hidden_states", "cross_attention_states"]
    if "decoder_input_ids" not in accepted:
        names.append("encoder_outputs")
    return {name: torch.zeros(shape, device="meta") for name in names if name in accepted}


def forward_options(model: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the arguments of the forward pass that are not streams."""
    accepted = inspect.signature(model.forward).parameters
    mask = torch.ones(1, inputs["input_ids"].shape[1], dtype=torch.long)
    options = {"use_cache": False, "attention_mask": mask}
    return {key: value for key, value in options.items() if key in accepted}
