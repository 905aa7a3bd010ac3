"""How does pydantic's list of errors become sentences about a study file?"""

import re
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from loratlas.errors import RuleError, did_you_mean
from loratlas.measure.measures import FORGETTING
from loratlas.study import fields, sections
from loratlas.study.document import Document, Location, dotted
from loratlas.study.learned_fields import HybridFields, PolicyFields
from loratlas.study.problems import Problem, visible
from loratlas.study.values import TAGS

_SECTIONS: dict[str, type[BaseModel]] = {
    "training": sections.TrainingFields,
    "lora": sections.LoraFields,
    "data": sections.DataFields,
    "model": sections.ModelFields,
}
_HABITS = {
    "bf16": "dtype",
    "dataset": "data",
    "fp16": "dtype",
    "grad_clip": "clip",
    "gradient_accumulation_steps": "accumulation",
    "log_with": "track",
    "lora_alpha": "alpha",
    "lr": "learning_rate",
    "max_grad_norm": "clip",
    "max_seq_length": "max_length",
    "max_steps": "steps",
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "batch",
    "precision": "dtype",
    "r": "rank",
    "report_to": "track",
    "target_modules": "rule",
    "use_rslora": "scaling",
}
"""What other tools call a key of a study file."""

_NUMBER = re.compile(r"[-+]?[0-9_.]+([eE][-+]?[0-9]+)?")


def problems_of(error: ValidationError, document: Document) -> list[Problem]:
    """Return one problem for each error, with the line of the value it is about."""
    problems, suggested = [], set()
    details = [
        (_location(item["loc"], document.data), item)
        for item in error.errors(include_url=False, include_input=True)
    ]
    for location, item in details:
        if item["type"] == "extra_forbidden":
            suggested.add((*location[:-1], _meant(location, document)))
    for location, item in details:
        if item["type"] == "missing" and location in suggested:
            continue  # said by the misspelt key
        text = _sentence(location, item, document)
        problems.append(Problem(line=document.line(location), key=dotted(location), text=text))
    return problems


def _location(steps: tuple[int | str, ...], data: Any) -> Location:
    """Return a location of the file: pydantic's, without the steps that name a form."""
    location: list[int | str] = []
    for step in steps:
        inside = isinstance(data, dict) and step in data
        if step in TAGS and not inside:
            continue
        location.append(step)
        is_item = isinstance(data, list) and isinstance(step, int) and step < len(data)
        data = data[step] if inside or is_item else None
    return tuple(location)


def _sentence(location: Location, item: ErrorDetails, document: Document) -> str:
    kind, context = item["type"], item.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(location, document)
    if kind == "missing":
        return "this key is missing"
    shown = document.shown(location)
    if kind == "allowed":
        return f"{_reason(context['cause'], item['input'], shown)}; {context['allowed']}"
    if kind == "literal_error":
        allowed = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        return _unknown_word(item["input"], shown, allowed)
    if kind == "value_error":
        return _first_line(context["error"], item["input"])
    if kind in ("model_type", "dict_type"):
        keys = _keys(location, document)
        given = "nothing is given" if item["input"] is None else f"{shown} is not a mapping"
        return f"{given}{f'; it has the keys: {keys}' if keys else ''}"
    if kind == "bool_type":
        return _unknown_word(item["input"], shown, ["true", "false"])
    return item["msg"] if kind == "stated" else _reason(kind, item["input"], shown)


def _first_line(error: Exception, given: Any) -> str:
    """Return an error on one line; a rule's own message draws its place on lines below."""
    first = str(error).split("\n", 1)[0]
    in_rule = isinstance(error, RuleError) and isinstance(given, str)
    return f"{first} in the rule: {visible(given)}" if in_rule else first


def _unknown_word(given: Any, shown: str, allowed: list[str]) -> str:
    if given is None:
        return f"nothing is given; allowed: {', '.join(allowed)}"
    near = did_you_mean(str(given).lower(), allowed)
    return f"{shown} is not known{near}; allowed: {', '.join(allowed)}"


def _unknown_key(location: Location, document: Document) -> str:
    meant = _meant(location, document)
    hint = f" (did you mean {meant}?)" if meant else ""
    return f"this key is not known{hint}; known here: {_keys(location[:-1], document)}"


def _meant(location: Location, document: Document) -> str:
    """Return the key that a person meant, dotted where it belongs to another section."""
    given = str(location[-1])
    name = _HABITS.get(given, given)
    here = _section(location[:-1], document)
    allowed = list(here.model_fields) if here else []
    if name in allowed:
        return name
    for section, model in _SECTIONS.items():
        if name in model.model_fields:
            return f"{section}.{name}"
    near = did_you_mean(name, allowed)
    return near.removeprefix(" (did you mean ").removesuffix("?)")


def _keys(location: Location, document: Document) -> str:
    model = _section(location, document)
    return ", ".join(model.model_fields) if model else ""


def _section(location: Location, document: Document) -> type[BaseModel] | None:
    match location:
        case ():
            return fields.StudyFields
        case (str(name),):
            return _SECTIONS.get(name)
        case ("data", "source"):
            return sections.FileFields
        case ("placements", _):
            forms: dict[str, type[BaseModel]] = {
                "parts": fields.PartsFields,
                "scorer": HybridFields,
                "policy": PolicyFields,
            }
            found = [form for key, form in forms.items() if (*location, key) in document.entries]
            return found[0] if found else fields.RuleFields
        case ("placements", _, "parts", int()):
            return fields.PartFields
        case ("measures", int(place)):
            measure = document.data["measures"][place]
            forgets = isinstance(measure, dict) and measure.get("task") == FORGETTING
            return sections.ForgettingFields if forgets else sections.TaskFields
    return None


def _reason(kind: str, given: Any, shown: str) -> str:
    """Return what is wrong with a value, without what would be allowed."""
    if given is None:
        return "nothing is given"
    if kind.startswith(("int_", "float_")):
        return _no_number(kind, given, shown)
    if kind == "string_type" and isinstance(given, bool | int | float):
        return f"{shown} is not text (put quotes around it)"
    if kind == "string_too_long":
        return f"the text has {len(given)} characters"
    if kind == "too_short":
        return f"{shown} without an entry; at least one is needed"
    sentences = {
        "finite_number": "is not a finite number",
        "greater_than": "is too small",
        "greater_than_equal": "is too small",
        "less_than": "is too large",
        "less_than_equal": "is too large",
        "string_type": "is not text",
        "string_too_short": "is empty",
        "string_pattern_mismatch": "cannot be used",
        "string_unicode": "holds half a character",
        "list_type": "is not a list; write it as [...]",
        "too_long": "has too many entries",
    }
    return f"{shown} {sentences.get(kind, 'cannot be used')}"


def _no_number(kind: str, given: Any, shown: str) -> str:
    if isinstance(given, str):
        quoted = " (take the quotes away)" if _NUMBER.fullmatch(given) else ""
        return f"{shown} is text, not a number{quoted}"
    if isinstance(given, float) and kind.startswith("int_"):
        return f"{shown} is not a whole number"
    return f"{visible(shown)} is not a number"
