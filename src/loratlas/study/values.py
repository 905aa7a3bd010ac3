"""Which values may stand in a study file: types with bounds, and the sentence that says them.

Each type carries the sentence that a message ends with ("a rank is an integer from 1 up"), so
that bounds and words stand side by side.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from loratlas.bundled import demo_model_folder
from loratlas.errors import RuleError, did_you_mean
from loratlas.measure.measures import FORGETTING, HARNESS, LOSS
from loratlas.placement.rules import parse
from loratlas.study.problems import visible
from loratlas.study.tracking.trackers import Tracker

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

Match = Literal["parameters", "none"]
Device = Literal["auto", "cpu", "cuda", "mps"]
Engine = Literal["auto", "reference"]

ONE, LIST, KEYS, PARTS, TEXT = "<one>", "<list>", "<keys>", "<parts>", "<text>"
SCORER, POLICY = "<scorer>", "<policy>"
TAGS = (ONE, LIST, KEYS, PARTS, TEXT, SCORER, POLICY)
"""Steps that pydantic adds to a location where a value may have one of two forms."""

_LARGEST = 10**12
_PERCENT = r"^\d{1,3}(\.\d{1,12})? ?%$"


def _says(allowed: str) -> WrapValidator:
    """Attach the sentence that says what is allowed; it takes the place of pydantic's own."""

    def check(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            cause = error.errors(include_url=False)[0]["type"]
            context = {"allowed": allowed, "cause": cause}
            raise PydanticCustomError("allowed", "{allowed}", context) from None

    return WrapValidator(check)


def list_or_one(value: Any) -> str:
    """Choose between the forms `3` and `[1, 2, 3]`."""
    return LIST if isinstance(value, list) else ONE


def keys_or_one(value: Any) -> str:
    """Choose between the forms `word` and `{key: value}`."""
    return KEYS if isinstance(value, dict) else ONE


def placement_form(value: Any) -> str:
    """Choose between a rule, `{rule: ...}`, `{parts: ...}`, `{scorer: ...}`, `{policy: ...}`."""
    forms = {"parts": PARTS, "scorer": SCORER, "policy": POLICY}
    found = [tag for key, tag in forms.items() if isinstance(value, dict) and key in value]
    return found[0] if found else keys_or_one(value)


def measure_form(value: Any) -> str:
    """Choose between `word`, `{task: "lm_eval:..."}` and `{task: forgetting}`."""
    if isinstance(value, dict) and value.get("task") == FORGETTING:
        return TEXT
    return keys_or_one(value)


def distinct(values: list[Any]) -> list[Any]:
    """Refuse a list that holds one value twice."""
    for position, value in enumerate(values):
        if value in values[:position]:
            text = "{value} is given twice; each entry of the list is given once"
            raise PydanticCustomError("stated", text, {"value": str(value)})
    return values


def distinct_measures(values: list[Any]) -> list[Any]:
    """Refuse a measure that is given twice, be it by its name or with options."""
    distinct([getattr(value, "task", value) for value in values])
    return values


def _share_of_percent(value: Any) -> Any:
    """Read `5%` as 0.05; leave everything else to the check of numbers."""
    if isinstance(value, str) and re.match(_PERCENT, value):
        return float(value.rstrip("% \n")) / 100
    return value


def check_rule(rule: str | list[dict[str, Any]]) -> None:
    """Read a rule and its canonical form.

    Raises:
        RuleError: the rule cannot be read, or is longer than a person would write.
    """
    try:
        str(parse(rule))
    except RecursionError:
        raise RuleError("the rule joins too many operands; shorten it with a glob") from None


def _readable_rule(text: str) -> str:
    check_rule(text)
    return text


def _known_measure(name: str) -> str:
    if name in (LOSS, FORGETTING) or re.match(rf"{HARNESS}\S+$", name):
        return name
    words = (LOSS, FORGETTING)
    text = "{given} is not known{near}; allowed: {allowed}"
    context = {
        "given": visible(name),
        "near": did_you_mean(name, words),
        "allowed": ", ".join([*words, f"{HARNESS}TASK"]),
    }
    raise PydanticCustomError("stated", text, context)


def _known_if_bundled(name: str) -> str:
    if name.startswith("demo:"):
        demo_model_folder(name)
    return name


Text = Annotated[
    str,
    Field(min_length=1, max_length=300, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$"),
    _says("1 to 300 characters are needed, and no control characters"),
]
StudyName = Annotated[
    str,
    Field(pattern=NAME_PATTERN),
    _says(
        "the name of a study is 1 to 64 letters, digits, dots, dashes and underscores, and "
        "begins with a letter or a digit"
    ),
]
Baseline = Annotated[
    str, Field(min_length=1), _says("the baseline is the name of one of the placements")
]
ModelName = Annotated[Text, AfterValidator(_known_if_bundled)]
Rule = Annotated[
    str,
    Field(min_length=1, max_length=20_000),
    _says("a placement is a rule such as `attention`, {rule: ...}, or {parts: [...]}"),
    AfterValidator(_readable_rule),
]
Rank = Annotated[int, Field(ge=1, le=65536), _says("a rank is an integer from 1 up (to 65536)")]
RankOrZero = Annotated[
    int,
    Field(ge=0, le=65536),
    _says("a rank is an integer from 0 up (to 65536); 0 leaves a site out"),
]
Count = Annotated[int, Field(ge=1, le=_LARGEST), _says("an integer from 1 up is needed")]
Rows = Annotated[int, Field(ge=1, le=_LARGEST), _says("a number of rows is an integer from 1 up")]
RowsOrNone = Annotated[
    int, Field(ge=0, le=_LARGEST), _says("a number of rows is an integer; 0 leaves the split empty")
]
Tokens = Annotated[
    int, Field(ge=2, le=_LARGEST), _says("a number of tokens is an integer from 2 up")
]
Shots = Annotated[
    int, Field(ge=0, le=1000), _says("a number of solved examples is an integer from 0 up")
]
Seed = Annotated[int, Field(ge=0, lt=2**32), _says("a seed is an integer from 0 up (below 2^32)")]
Rate = Annotated[float, Field(gt=0, le=1000), _says("a learning rate is a number above 0")]
Positive = Annotated[float, Field(gt=0, le=_LARGEST), _says("a number above 0 is needed")]
FromZero = Annotated[float, Field(ge=0, le=_LARGEST), _says("a number from 0 up is needed")]
Dropout = Annotated[float, Field(ge=0, lt=1), _says("a dropout is a share from 0 to below 1")]
Share = Annotated[float, Field(gt=0, le=1), _says("a share is a number above 0, up to 1")]
Margin = Annotated[
    float,
    Field(gt=0, lt=1),
    BeforeValidator(_share_of_percent),
    _says("a margin is a share above 0 and below 100%, such as 5% or 0.05"),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
                {"type": "string", "pattern": _PERCENT},
            ]
        }
    ),
]
MeasureName = Annotated[
    str,
    Field(max_length=300),
    AfterValidator(_known_measure),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": [LOSS, FORGETTING]},
                {"type": "string", "pattern": f"^{HARNESS}\\S+$"},
            ]
        }
    ),
]
HarnessTask = Annotated[
    str,
    Field(max_length=300, pattern=rf"^{HARNESS}\S+$"),
    _says(f"a task is {HARNESS} and a name that lm_eval knows, such as {HARNESS}gsm8k"),
]
Trackers = Annotated[list[Tracker], Field(max_length=100), AfterValidator(distinct)]
Seeds = Annotated[
    Annotated[
        int,
        Field(ge=1, le=1000),
        _says("seeds are a number of seeds from 1 to 1000, or a list of different seeds"),
        Tag(ONE),
    ]
    | Annotated[
        list[Seed], Field(min_length=1, max_length=1000), AfterValidator(distinct), Tag(LIST)
    ],
    Discriminator(list_or_one),
]
Rates = Annotated[
    Annotated[Rate, Tag(ONE)]
    | Annotated[
        list[Rate], Field(min_length=1, max_length=1000), AfterValidator(distinct), Tag(LIST)
    ],
    Discriminator(list_or_one),
]
