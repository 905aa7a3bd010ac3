"""How is a row read: which text does it hold, and which part of it is the answer?

========================  ================================================  ==============
format                    keys                                              answer
========================  ================================================  ==============
alpaca                    instruction, output; input may be empty or left   output
                          out
prompt_completion         prompt, completion                                completion
text                      text                                              there is none
messages                  messages: a list of {role, content}               assistant turns
gsm8k                     question, answer                                  answer
classification            text, label; text_pair may be left out            the label
========================  ================================================  ==============
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from loratlas.data.files import Row, describe
from loratlas.data.spec import DATA_FORMATS, LOSS_ON, DataFormat, LossOn
from loratlas.errors import DataError, did_you_mean

# The template that the Alpaca models were trained with, in the form of the `text` column of
# tatsu-lab/alpaca: a line break follows "### Response:". The first training script had none.
ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
ALPACA_WITHOUT_INPUT = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)
# The wording that lm-evaluation-harness asks GSM8K with; the answer follows after a space.
GSM8K_PROMPT = "Question: {question}\nAnswer:"

ROLES = ("system", "developer", "user", "assistant", "tool")


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """A stretch of a row's text that is either scored as a whole or not at all."""

    text: str
    scored: bool
    role: str | None = None
    """Who speaks, in a conversation; the chat template then decides how it is written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """A row as text: its segments in reading order."""

    row: int
    """Place among the rows of its split in the source, from 0."""
    where: str
    """File and line, or data set and row."""
    segments: tuple[Segment, ...]
    scores_all: bool = False
    """Whether every token is scored, those that a chat template adds included."""
    label: str | None = None
    """The class that the row belongs to, in format classification."""

    @property
    def content(self) -> tuple[tuple[str | None, str], ...]:
        """What the example says. Two rows with equal content are the same text."""
        return tuple((segment.role, segment.text) for segment in self.segments)


@dataclass(frozen=True, kw_only=True, slots=True)
class Examples:
    """The rows of one split of a source that can be used, and how many cannot."""

    examples: tuple[Example, ...]
    num_rows: int
    num_unanswered: int
    """Rows whose answer is empty (whose text is, where there is no answer); they are left out."""


def read_examples(rows: Iterable[Row], *, data_format: DataFormat, loss_on: LossOn) -> Examples:
    """Read rows in a format.

    `loss_on` says what is scored: everything, or the answer of the row, whichever of its three
    names (response, completion, assistant) is used. A row with an empty answer is left out and
    counted rather than refused: published sets hold a few (tatsu-lab/alpaca does).

    Raises:
        DataError: a key is missing, holds another type, or holds no text where the prompt needs
            some; or the format has no answer and `loss_on` asks for one.
    """
    _check_choice(data_format, loss_on)
    read = _FORMATS[data_format]
    scores_all = loss_on == "everything" and data_format != "classification"
    examples = []
    num_rows = 0
    for row in rows:
        num_rows += 1
        segments = read(row)
        label = _label(row) if data_format == "classification" else None
        if not _answered(segments, label):
            continue
        if scores_all:
            segments = tuple(replace(segment, scored=True) for segment in segments)
        examples.append(
            Example(
                row=row.index,
                where=row.where,
                segments=segments,
                scores_all=scores_all,
                label=label,
            )
        )
    return Examples(
        examples=tuple(examples), num_rows=num_rows, num_unanswered=num_rows - len(examples)
    )


def _answered(segments: tuple[Segment, ...], label: str | None) -> bool:
    if label is not None:
        return bool(segments[0].text.strip())
    scored = [segment for segment in segments if segment.scored]
    return bool(scored) and all(segment.text.strip() for segment in scored)


def _check_choice(data_format: str, loss_on: str) -> None:
    if data_format not in DATA_FORMATS:
        near = did_you_mean(data_format, DATA_FORMATS)
        raise DataError(
            f"data.format: {data_format} is not a format{near}; formats: {', '.join(DATA_FORMATS)}"
        )
    if loss_on not in LOSS_ON:
        near = did_you_mean(loss_on, LOSS_ON)
        raise DataError(f"data.loss_on: {loss_on} is none of {', '.join(LOSS_ON)}{near}")
    if data_format == "text" and loss_on != "everything":
        raise DataError(
            f"data.loss_on: format text has no {loss_on} to tell from a prompt; "
            "use loss_on: everything"
        )


def _alpaca(row: Row) -> tuple[Segment, ...]:
    instruction = _text(row, "instruction")
    context = _optional_text(row, "input", beside=("instruction", "output"))
    template = ALPACA_WITH_INPUT if context.strip() else ALPACA_WITHOUT_INPUT
    prompt = template.format(instruction=instruction, input=context)
    return _prompt_and_answer(prompt, _string(row, "output"))


def _prompt_completion(row: Row) -> tuple[Segment, ...]:
    return _prompt_and_answer(_text(row, "prompt"), _string(row, "completion"))


def _gsm8k(row: Row) -> tuple[Segment, ...]:
    prompt = GSM8K_PROMPT.format(question=_text(row, "question"))
    return _prompt_and_answer(prompt, f" {_string(row, 'answer')}")


def _plain_text(row: Row) -> tuple[Segment, ...]:
    return (Segment(text=_string(row, "text"), scored=True),)


def _classification(row: Row) -> tuple[Segment, ...]:
    first, second = _string(row, "text"), _optional_text(row, "text_pair", beside=("text", "label"))
    texts = (first, second) if second else (first,)
    return tuple(Segment(text=text, scored=False) for text in texts)


def _label(row: Row) -> str:
    """Return the name of a row's class: a text, or a whole number as one."""
    value = _value(row, "label")
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise DataError(
            f'{row.where}: "label" must be a text or a whole number, found {describe(value)}'
        )
    return str(value)


def _prompt_and_answer(prompt: str, answer: str) -> tuple[Segment, ...]:
    return (Segment(text=prompt, scored=False), Segment(text=answer, scored=True))


def _messages(row: Row) -> tuple[Segment, ...]:
    messages = _value(row, "messages")
    if not isinstance(messages, list) or not messages:
        found = "an empty list" if messages == [] else describe(messages)
        raise DataError(
            f'{row.where}: "messages" must be a list of {{role, content}}, found {found}'
        )
    return tuple(_turn(row, number, message) for number, message in enumerate(messages, start=1))


def _turn(row: Row, number: int, message: object) -> Segment:
    where = f"{row.where}: message {number}"
    if not isinstance(message, Mapping):
        raise DataError(f"{where}: must be {{role, content}}, found {describe(message)}")
    turn = Row(values=message, where=where, index=row.index)
    role, content = _text(turn, "role"), _string(turn, "content")
    if role not in ROLES:
        near = did_you_mean(role, ROLES)
        raise DataError(f'{where}: role "{role}" is none of {", ".join(ROLES)}{near}')
    if role == "user":
        content = _text(turn, "content")
    return Segment(text=content, scored=role == "assistant", role=role)


def _value(row: Row, key: str) -> object:
    if key in row.values:
        return row.values[key]
    keys = [str(given) for given in row.values]
    held = f"the row holds {', '.join(keys[:12])}" if keys else "the row holds no key"
    raise DataError(f'{row.where}: no key "{key}"; {held}{did_you_mean(key, keys)}')


def _string(row: Row, key: str) -> str:
    value = _value(row, key)
    if not isinstance(value, str):
        raise DataError(f'{row.where}: "{key}" must be a text, found {describe(value)}')
    return value


def _text(row: Row, key: str) -> str:
    value = _string(row, key)
    if not value.strip():
        raise DataError(f'{row.where}: "{key}" must hold some text, found {describe(value)}')
    return value


def _optional_text(row: Row, key: str, *, beside: Collection[str]) -> str:
    """Return a text that a row may leave out, but not misspell; `beside` are its other keys."""
    others = [name for name in map(str, row.values) if name not in beside]
    if key not in row.values and not did_you_mean(key, others):
        return ""
    return "" if _value(row, key) is None else _string(row, key)


_FORMATS: dict[str, Callable[[Row], tuple[Segment, ...]]] = {
    "alpaca": _alpaca,
    "prompt_completion": _prompt_completion,
    "text": _plain_text,
    "messages": _messages,
    "gsm8k": _gsm8k,
    "classification": _classification,
}
