"""Models that are not there, cannot be read, or are not what their configuration says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bad_input.case import (
    LONG,
    RUN,
    SCORE,
    Case,
    Spoil,
    as_it_is,
    both,
    edit,
    edit_json,
    remove,
    write,
    write_json,
)

_CONFIG = "model/config.json"
_WEIGHTS = "model/model.safetensors"
_TOKENIZER = "model/tokenizer.json"
_MIXTRAL = {
    "model_type": "mixtral",
    "architectures": ["MixtralForCausalLM"],
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_local_experts": 4,
    "vocab_size": 64,
}


def _loaded(name: str, given: Spoil, says: str) -> Case:
    """What is found when the base is loaded."""
    return Case(name=name, given=given, asked=RUN, says=says)


def _configured(name: str, content: str, says: str) -> Case:
    return Case(
        name=name, given=write(_CONFIG, content), asked=("anatomy", "model"), says=f"model{says}"
    )


def _named(name: str, given: str, says: str) -> Case:
    return Case(name=name, asked=("anatomy", given), says=says)


def _placed(name: str, given: Spoil, asked: tuple[str, ...], says: str, **rest: Any) -> Case:
    return Case(name=name, given=given, asked=("place", *asked), says=says, **rest)


def _weights(change: Callable[[bytes], bytes]) -> Spoil:
    return lambda folder: (folder / _WEIGHTS).write_bytes(change((folder / _WEIGHTS).read_bytes()))


def _pickled(folder: Path) -> None:
    """Weights in the one format that runs code when it is read."""
    (folder / _WEIGHTS).unlink()
    (folder / "model" / "pytorch_model.bin").write_bytes(b"pickle")


def _only_nan(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / _WEIGHTS)
    spoiled = {name: tensor * float("nan") for name, tensor in tensors.items()}
    save_file(spoiled, folder / _WEIGHTS, metadata={"format": "pt"})


def _other_vocabulary(folder: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_layer=1, n_embd=32, n_head=4, n_positions=64, vocab_size=50)
    GPT2LMHeadModel(config).save_pretrained(folder / "model")


def _both_ways(folder: Path) -> None:
    from transformers import BertConfig, BertLMHeadModel

    config = BertConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=400,
    )
    BertLMHeadModel(config).save_pretrained(folder / "model")


def _without_pad(folder: Path) -> None:
    file = folder / "model" / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({key: settings[key] for key in settings if key != "pad_token"}))


_NAMES = [
    _named("a folder that is not there", "./nowhere", "./nowhere: no such file or folder"),
    _named(
        "a folder name that is nearly right",
        "./modle",
        "./modle: no such file or folder (did you mean model?)",
    ),
    _named(
        "a model nobody has", "nobody/nothing", "nobody/nothing: no folder of this name is here"
    ),
    _named(
        "a bundled model that is none",
        "demo:gpt3",
        "demo:gpt3: no such bundled model (did you mean demo:gpt2?)",
    ),
    _named("an empty name", "", "the name of the model is empty"),
    _named(
        "ANSI in a name", "x\x1b[31m", r"x\x1b[31m: no folder here, and no valid name on the hub"
    ),
    _named("markup as a name", "[/red]", "[/red]: no folder here, and no valid name on the hub"),
    _named("a name of 300 characters", LONG, "aaa: cannot be looked up: File name too long"),
    _named("the home of nobody", "~nobody-of-this-name/model", "~nobody-of-this-name/model: "),
    Case(
        name="a revision of a folder",
        asked=("anatomy", "model", "--revision", "v2"),
        says="model: a revision (v2) can only be given for a name on the hub",
    ),
    Case(
        name="a model that is not there, in a study",
        given=edit(("model: model", "model: ./nowhere")),
        asked=RUN,
        says="./nowhere: no such file or folder",
    ),
    Case(
        name="a bundled model that is none, in a study",
        given=edit(("model: model", "model: demo:gpt3")),
        asked=RUN,
        says="study.yaml:2: model: demo:gpt3: no such bundled model (did you mean demo:gpt2?)",
    ),
]

_CONFIGURATIONS = [
    _configured(
        "a configuration cut off", '{"model_type": "gpt2",', "/config.json: not valid JSON"
    ),
    _configured("an empty configuration", "", "/config.json: not valid JSON (line 1, column 1: "),
    _configured("a list as configuration", "[]", "/config.json: holds a list, not a configuration"),
    _configured(
        "a configuration nested without end", "[" * 100_000, "/config.json: cannot be read as"
    ),
    _configured(
        "a number of 5000 digits", '{"n_layer": ' + "9" * 5000 + "}", "/config.json: cannot be"
    ),
    _configured("no type of model", "{}", ": its configuration has no model_type, such as gpt2 or"),
    _configured(
        "a type that is nearly right", '{"model_type": "lama"}', "...knows no model_type lama"
    ),
    _configured("a type that is none", '{"model_type": "gpt22"}', ": transformers "),
    _configured(
        "layers in words", '{"model_type": "gpt2", "n_layer": "three"}', ": no gpt2 can be"
    ),
    _configured(
        "a width below zero", '{"model_type": "gpt2", "n_embd": -4}', ": no gpt2 can be built"
    ),
    _configured(
        "code of its own",
        '{"model_type": "own", "auto_map": {"AutoModel": "own.Own"}}',
        ": ...needs code that comes with",
    ),
    Case(
        name="a folder without configuration",
        given=remove(_CONFIG),
        asked=("anatomy", "model"),
        says="model: this folder has no config.json",
    ),
    Case(
        name="a configuration in place of a model",
        given=edit(("model: model", "model: model/config.json")),
        asked=RUN,
        says="is a file; weights and tokenizer are read from the folder that holds it",
    ),
    Case(
        name="a model without layers",
        given=edit_json(_CONFIG, n_layer=0),
        asked=("plan", "study.yaml"),
        says="has no site inside its blocks; its roles are embedding (2), head (1)",
    ),
]

_WEIGHT_FILES = [
    _loaded(
        "weights cut in half",
        _weights(lambda data: data[: len(data) // 2]),
        "model: the model cannot be loaded: Error while deserializing header",
    ),
    _loaded(
        "weights that are text",
        write(_WEIGHTS, "no weights, only a name" * 99),
        "model: the model cannot be loaded: Error while deserializing header",
    ),
    _loaded(
        "an empty file of weights", write(_WEIGHTS, b""), "model: the model cannot be loaded: "
    ),
    _loaded(
        "pickled weights alone", _pickled, "model: the model cannot be loaded: Error no file named"
    ),
    _loaded(
        "no weights", remove(_WEIGHTS), "model: the model cannot be loaded: Error no file named"
    ),
    _loaded(
        "layers without weights",
        edit_json(_CONFIG, n_layer=4),
        "its weights do not fit its config.json: 12 tensors are missing, first transformer.h.3",
    ),
    _loaded(
        "weights of another width",
        edit_json(_CONFIG, n_embd=64),
        "its weights do not fit its config.json: ...tensors have another shape, first ",
    ),
    _loaded(
        "weights of another vocabulary",
        edit_json(_CONFIG, vocab_size=100),
        "1 tensors have another shape, first transformer.wte.weight: ",
    ),
    _loaded(
        "a model that sees what it predicts",
        both(remove(_WEIGHTS), _both_ways),
        "BertLMHeadModel predicts next tokens, but its configuration lets it attend in both",
    ),
    Case(
        name="weights of NaN",
        given=_only_nan,
        asked=(*RUN, "--no-probe"),
        code=1,
        says="the untuned base gives the ...rows a loss of nan",
        leaves=("out", "out/*"),
    ),
    Case(
        name="no pad token",
        given=_without_pad,
        asked=(*SCORE[:-1], "--json"),
        code=0,
        why="rows are filled up with the end token, and attention and loss never see it",
        says='"method": "depth"',
    ),
]

_TOKENIZERS = [
    _loaded(
        "no tokenizer",
        remove(_TOKENIZER, "model/tokenizer_config.json"),
        "model: no tokenizer comes with it (tokenizer.json is missing)",
    ),
    _loaded("a tokenizer that is none", write(_TOKENIZER, "{}"), "model: the tokenizer cannot be"),
    _loaded(
        "a tokenizer of another model",
        both(remove(_WEIGHTS), _other_vocabulary),
        "its vocabulary has 50 entries: tokenizer and model do not belong together",
    ),
]

_KINDS = [
    _placed(
        "a part of a fused map",
        as_it_is,
        ("model", "attention.q"),
        "the rule attention.q selects no site...fuses q, k and v in attention.qkv",
    ),
    _placed(
        "a name in two kinds of block",
        as_it_is,
        ("model", "names(c_proj)"),
        "ambiguous-name",
        code=0,
        why="GPT-2 has c_proj in attention and feed-forward; a warning names both",
    ),
    _placed(
        "a tied head",
        as_it_is,
        ("model", "head"),
        "head-tied",
        code=0,
        why="it can be adapted; a warning says that the embedding shares the weights",
    ),
    _placed(
        "a router of experts",
        write_json("moe.json", _MIXTRAL),
        ("moe.json", "router"),
        "router-adapted",
        code=0,
        why="it can be adapted; a warning says what changes",
    ),
    _placed(
        "experts where there are none",
        as_it_is,
        ("model", "expert"),
        "the rule expert selects no site. expert: model has no expert site; its roles are",
    ),
    _placed(
        "dropout on experts",
        both(
            write_json("moe.json", _MIXTRAL),
            edit_json(
                "adapter/adapter_config.json",
                target_modules=[],
                target_parameters=["down_proj"],
                lora_dropout=0.1,
            ),
        ),
        ("moe.json", "--peft", "adapter"),
        "adapter: PEFT refuses this configuration: adapters of parameters, such as",
    ),
    _placed(
        "layer 1 beside layer 11",
        edit_json(_CONFIG, n_layer=12),
        ("model/config.json", "names(h.1.attn.c_attn)", "--json"),
        '"path": "transformer.h.1.attn.c_attn"..."trainable_parameters": 1024',
        code=0,
        why="names match by dotted segments, so that 1 is not the beginning of 11",
    ),
]

CASES = [*_NAMES, *_CONFIGURATIONS, *_WEIGHT_FILES, *_TOKENIZERS, *_KINDS]
