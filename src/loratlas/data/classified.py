"""Which class does a text, or a pair of texts, belong to?

Classes are numbered in the order of their sorted names; whole numbers are sorted as numbers. The
rows for training decide which classes there are: one that only another split holds cannot be
learned, and is refused.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from loratlas.data.formats import Example
from loratlas.data.rows import Tokenized, TokenizedRow, frozen_ids, frozen_marks
from loratlas.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def class_names(splits: Mapping[str, Sequence[Example]]) -> tuple[str, ...]:
    """Return the names of the classes of a study, by their index.

    Args:
        splits: the drawn rows by split; train decides.

    Raises:
        DataError: there are fewer than two, or another split holds one more.
    """
    names = _sorted({example.label for example in splits["train"] if example.label is not None})
    if len(names) < 2:
        found = f"only {names[0]}" if names else "none"
        raise DataError(f"data: classification needs at least two classes in train, found {found}")
    for split, examples in splits.items():
        for example in examples:
            if example.label not in names:
                raise DataError(
                    f"{example.where}: class {example.label} of {split} does not occur in the "
                    f"rows for training, whose classes are {', '.join(names[:10])}"
                )
    return names


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    found = list(names)
    numbers = all(name.lstrip("-").isdecimal() for name in found)
    return tuple(sorted(found, key=int) if numbers else sorted(found))


def tokenize_classified(
    examples: Sequence[Example],
    tokenizer: "PreTrainedTokenizerBase",
    names: Sequence[str],
    *,
    max_length: int,
) -> Tokenized:
    """Tokenise texts as the tokenizer itself writes one text or a pair, cut at `max_length`."""
    index = {name: number for number, name in enumerate(names)}
    rows: list[TokenizedRow] = []
    num_truncated = 0
    for example in examples:
        texts = [segment.text for segment in example.segments]
        whole = tokenizer(*texts, verbose=False)
        cut = tokenizer(*texts, truncation=True, max_length=max_length)
        types = cut.get("token_type_ids")
        num_truncated += len(cut["input_ids"]) < len(whole["input_ids"])
        rows.append(
            TokenizedRow(
                row=example.row,
                ids=frozen_ids(cut["input_ids"]),
                scored=frozen_marks([False] * len(cut["input_ids"])),
                num_bytes=0,
                types=None if types is None else frozen_ids(types),
                label=index[str(example.label)],
            )
        )
    return Tokenized(rows=tuple(rows), num_truncated=num_truncated, num_skipped=0)
