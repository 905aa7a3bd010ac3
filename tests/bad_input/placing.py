"""Rules, saved placements and LoRA configurations that `place` and `diff` are asked about."""

from pathlib import Path
from typing import Any

from bad_input.case import Case, Spoil, as_it_is, edit_json, write, write_json

_CONFIG = "adapter/adapter_config.json"
_SLOW = "(([a-z0-9._]*)*)*X"
_HUGE = "9" * 400


def _place(name: str, asked: tuple[str, ...], says: str) -> Case:
    return Case(name=name, asked=("place", "model", *asked), says=says)


def _adapter(name: str, says: str, seconds: float = 180, **fields: Any) -> Case:
    """A LoRA configuration that cannot be explained."""
    return Case(
        name=name,
        given=edit_json(_CONFIG, **fields),
        asked=("place", "model", "--peft", "adapter"),
        says=says,
        seconds=seconds,
    )


def _adapter_file(name: str, content: str | bytes, says: str) -> Case:
    return Case(
        name=name,
        given=write(_CONFIG, content),
        asked=("place", "model", "--peft", "adapter"),
        says=says,
    )


def _explained(name: str, says: str, why: str, **fields: Any) -> Case:
    """A LoRA configuration that PEFT takes, and that does something else than it seems to."""
    return Case(
        name=name,
        given=edit_json(_CONFIG, **fields),
        asked=("place", "model", "--peft", "adapter"),
        says=says,
        code=0,
        why=why,
    )


def _saved(name: str, content: Any, says: str) -> Case:
    """A saved placement that a rule names."""
    return Case(
        name=name,
        given=write_json("saved.json", content),
        asked=("place", "model", "file(saved.json)"),
        says=says,
    )


def _diff(name: str, given: Spoil, right: str, says: str) -> Case:
    return Case(name=name, given=given, asked=("diff", "model", "all", right), says=says)


def _adapter_row(**changes: Any) -> dict[str, Any]:
    row = {"path": "transformer.h.0.attn.c_attn", "rank": 2, "alpha": 4, **changes}
    return {"placement": [row]}


def _without_config(folder: Path) -> None:
    (folder / _CONFIG).unlink()


_PLACE = [
    _place(
        "neither a rule nor a configuration",
        (),
        "place takes a rule, such as all, or --peft FILE: neither was given",
    ),
    _place("both a rule and a configuration", ("all", "--peft", "adapter"), "...both were given"),
    _place("rank 0", ("all", "--rank", "0"), "rank is a positive integer, not 0"),
    _place("alpha inf", ("all", "--alpha", "inf"), "alpha is a finite number, not inf"),
    _place(
        "alpha beyond a float", ("all", "--alpha", "1e999"), "alpha is a finite number, not inf"
    ),
    _place("alpha NaN", ("all", "--alpha", "nan"), "alpha is positive, not nan"),
    _place("alpha 0", ("all", "--alpha", "0"), "alpha is positive, not 0.0"),
    _place("rank 0 in a rule", ("attention:0",), "a rank is a positive integer, not 0 (column 11)"),
    _place("an empty rule", ("",), "the rule is empty; it needs a word such as all, attention"),
    _place("a hyphen", ("feed-forward",), "unknown word feed-forward (did you mean feed_forward?)"),
    _place("ANSI in a rule", ("all\x1b[2J",), r"cannot read '\x1b' here"),
    _place("a layer that is not there", ("all @ layers(99)",), "layer 99 is not there"),
    _place("parts that overlap", ("all + all",), "the parts all and all overlap in 12 sites"),
    _place("layers backwards", ("all @ layers(2..1)",), "2..1 is empty; a range goes upwards"),
    _place(
        "markup as a name", ("names([/red])",), "[/red] is no name: names takes dotted suffixes"
    ),
    _place(
        "a rank of 400 digits in a rule", (f"all:{_HUGE}",), "a number of 400 digits; at most 100"
    ),
    _saved(
        "a saved placement of another form", {"sites": []}, 'file("saved.json") holds no placement'
    ),
    _saved(
        "a saved rank of 0", _adapter_row(rank=0), 'file("saved.json"): an adapter has a path, a'
    ),
    _saved(
        "a saved rank of 400 digits", _adapter_row(rank=int(_HUGE)), "an adapter has a path, a rank"
    ),
    _saved(
        "a saved alpha of NaN", _adapter_row(alpha=float("nan")), "an adapter has a path, a rank"
    ),
    _saved(
        "a saved alpha of 400 digits", _adapter_row(alpha=int(_HUGE)), "an adapter has a path, a"
    ),
    _saved(
        "a saved site of another model",
        _adapter_row(path="model.layers.0.q_proj"),
        "1 of 1 sites are not in model, first model.layers.0.q_proj",
    ),
    _saved(
        "a site saved twice",
        {"placement": _adapter_row()["placement"] * 2},
        'file("saved.json") names transformer.h.0.attn.c_attn twice',
    ),
]

_ADAPTERS = [
    Case(
        name="no adapter_config.json",
        given=_without_config,
        asked=("place", "model", "--peft", "adapter"),
        says="there is no LoRA configuration adapter/adapter_config.json",
    ),
    Case(
        name="a configuration of 300 characters",
        asked=("place", "model", "--peft", "a" * 300),
        says="aaa...cannot be read as a LoRA configuration: ...File name too long",
    ),
    Case(
        name="a configuration in the home of nobody",
        asked=("place", "model", "--peft", "~nobody-of-this-name/adapter"),
        says="~nobody-of-this-name/adapter",
    ),
    _adapter_file(
        "a configuration cut off", '{"r": 4, "tar', "adapter/adapter_config.json cannot be"
    ),
    _adapter_file("a list as configuration", "[]", "holds a list, not a LoRA configuration"),
    _adapter_file("Latin-1 in a configuration", b'{"r": "\xe9"}', "cannot be read as a LoRA"),
    _adapter_file("a configuration nested without end", "[" * 100_000, "cannot be read as a LoRA"),
    _adapter_file(
        "the configuration of a model", '{"vocab_size": 3}', "this is no LoRA configuration"
    ),
    _adapter(
        "targets that hit nothing",
        "PEFT refuses this configuration: it hits nothing",
        target_modules=["valu_proj"],
    ),
    _adapter(
        "layers beside all-linear",
        "layers_to_transform cannot be used when target_modules is",
        target_modules="all-linear",
        layers_to_transform=[1],
    ),
    _adapter(
        "a target that holds others",
        "hits transformer.h.0.mlp, which is no linear map",
        target_modules=["mlp"],
    ),
    _adapter(
        "an expression that is none",
        "target_modules: 'c_attn[' is not a valid regular",
        target_modules="c_attn[",
    ),
    _adapter(
        "a mapping of targets",
        "target_modules is a list of names, not {'a': 1}",
        target_modules={"a": 1},
    ),
    _adapter(
        "a number among targets",
        "target_modules is a list of names; 3 is none",
        target_modules=["c_attn", 3],
    ),
    _adapter("a rank of 0", "the rank of transformer.h.0.attn.c_attn is 0", r=0),
    _adapter("a rank in words", "r is an integer, not 'four'", r="four"),
    _adapter("a rank of 400 digits", "r is an integer of at most", r=int(_HUGE)),
    _adapter(
        "an alpha of NaN",
        "lora_alpha is a finite number up to 1e+12, not nan",
        lora_alpha=float("nan"),
    ),
    _adapter(
        "an alpha of inf",
        "lora_alpha is a finite number up to 1e+12, not inf",
        lora_alpha=float("inf"),
    ),
    _adapter("alpha of 400 digits", "lora_alpha is a finite number", lora_alpha=int(_HUGE)),
    _adapter(
        "a pattern that is a list",
        "rank_pattern gives each name a number, such as",
        rank_pattern=["c_attn"],
    ),
    _adapter(
        "a pattern of words",
        "alpha_pattern.c_attn is a number, not 'x'",
        alpha_pattern={"c_attn": "x"},
    ),
    _adapter(
        "dropout above 1", "PEFT refuses this configuration: lora_dropout is 1.5", lora_dropout=1.5
    ),
    _adapter(
        "AdaLoRA", "a configuration of peft_type ADALORA is not read yet", peft_type="ADALORA"
    ),
    _adapter(
        "layers replicated",
        "a configuration with layer_replication is not read",
        layer_replication=[[0, 1]],
    ),
    _adapter(
        "a catastrophic target",
        "target_modules: '(([a-z0-9._]*)*)*X' could not be held against",
        target_modules=_SLOW,
        seconds=60,
    ),
    _adapter(
        "a catastrophic exclusion",
        "exclude_modules: '(([a-z0-9._]*)*)*X' could not be held",
        exclude_modules=_SLOW,
        seconds=60,
    ),
    _adapter(
        "a catastrophic pattern",
        "rank_pattern: '(([a-z0-9._]*)*)*X' could not be held against",
        rank_pattern={_SLOW: 2},
        seconds=60,
    ),
    _explained(
        "a target that is half dead",
        "dead-target",
        "PEFT takes it; a warning names the target",
        target_modules=["c_attn", "c_prj"],
    ),
    _explained(
        "a layer out of range",
        "layer-out-of-range",
        "PEFT takes it; a warning names the layer",
        layers_to_transform=[1, 99],
    ),
    _explained(
        "a lone surrogate among targets",
        "dead-target",
        "PEFT takes it; it is printed escaped",
        target_modules=["c_attn", "\ud800"],
    ),
    _explained(
        "ANSI among targets",
        "dead-target",
        "PEFT takes it; it is printed escaped",
        target_modules=["c_attn", "\x1b[31mred"],
    ),
    _explained(
        "an expression that warns",
        "c_attn",
        "re reads it, and says nothing at the terminal",
        target_modules=".*[[]*c_attn",
    ),
]

_DIFFS = [
    _diff("a file that is not there", as_it_is, "none.json", "there is no file none.json"),
    _diff(
        "a list in place of a placement",
        write("list.json", "[]"),
        "list.json",
        "list.json holds a list, and no placement",
    ),
    _diff(
        "a placement that is no JSON", write("cut.json", "{"), "cut.json", "cut.json cannot be read"
    ),
    _diff(
        "settings that are no mapping",
        write_json("odd.json", {**_adapter_row(), "lora_config": [1]}),
        "odd.json",
        "odd.json: lora_config",
    ),
    _diff(
        "a rule that cannot be read",
        as_it_is,
        "attenton",
        "unknown word attenton (did you mean attention?)",
    ),
]

CASES = [*_PLACE, *_ADAPTERS, *_DIFFS]
