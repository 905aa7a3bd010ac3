"""How much does a fine-tuned model lose on general text that it was not tuned on?

The loss on a held-out text before training and after, every token scored, by the scorer of the
trials themselves. PEFT's method comparison measures forgetting in the same way.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from loratlas.anatomy.sites import digest_of
from loratlas.data.files import Row
from loratlas.data.formats import Example, read_examples
from loratlas.data.rows import TokenizedRow
from loratlas.data.sources import read_source
from loratlas.data.spec import DataSpec
from loratlas.data.tokens import tokenize
from loratlas.errors import DataError, NotYetError
from loratlas.measure.likelihood import score
from loratlas.measure.measures import DEMO_TEXT, FORGETTING, ForgettingMeasure
from loratlas.measure.scores import SplitScore
from loratlas.train.base import Base, max_positions

_SEED = 0
# Of the documents of demo:text: another than the one that the bundled model's own were drawn with.
_DEMO_SEED = 1_000_003


@dataclass(frozen=True, kw_only=True)
class PreparedForgetting:
    """General text, ready to be scored by any model of a study.

    Attributes:
        measure: what the study asks for.
        rows: the tokenised rows, every token but the first scored.
        num_truncated: rows that were cut.
        digest: SHA-256 over the token ids.
    """

    measure: ForgettingMeasure
    rows: tuple[TokenizedRow, ...]
    num_truncated: int
    digest: str

    @property
    def name(self) -> str:
        """The name under which results are kept."""
        return FORGETTING

    @property
    def num_questions(self) -> int:
        """Rows that are scored."""
        return len(self.rows)

    def take(self, model: Any, base: Base) -> SplitScore:
        """Score the text with the base's own model, or with one that has adapters in it."""
        return score(model, self.rows, collator=base.collator, device=base.device)


def prepare_forgetting(measure: ForgettingMeasure, base: Base, *, root: Path) -> PreparedForgetting:
    """Read, draw and tokenise general text.

    Raises:
        DataError: the source cannot be read, or has too few rows.
        NotYetError: the base is no causal language model.
    """
    if base.task != "causal":
        raise NotYetError(
            f"measures: {FORGETTING} is measured on causal language models; {base.ref.name} is a "
            f"{base.task} model"
        )
    limit = max_positions(base.model)
    length = measure.max_length if limit is None else min(measure.max_length, limit)
    tokenized = tokenize(_drawn(measure, root=root), base.tokenizer, max_length=length)
    if not tokenized.rows:
        raise DataError(f"measures: {FORGETTING}: {measure.source}: no row has a token to score")
    return PreparedForgetting(
        measure=measure,
        rows=tokenized.rows,
        num_truncated=tokenized.num_truncated,
        digest=_digest(tokenized.rows),
    )


def _drawn(measure: ForgettingMeasure, *, root: Path) -> Sequence[Example]:
    """Return rows without repeats, drawn with a fixed seed, in the order of the source."""
    rows = _demo_rows(measure) if measure.source == DEMO_TEXT else _rows(measure, root=root)
    read = read_examples(rows, data_format=measure.format, loss_on="everything")
    examples = list({example.content: example for example in reversed(read.examples)}.values())
    examples.reverse()
    if measure.rows > len(examples):
        raise DataError(
            f"measures: {FORGETTING}: {measure.source}: asked for {measure.rows:,} rows, and "
            f"{len(examples):,} of its {read.num_rows:,} hold text and do not repeat another"
        )
    shuffled = np.random.default_rng(_SEED).permutation(len(examples))[: measure.rows]
    return [examples[place] for place in sorted(shuffled.tolist())]


def _rows(measure: ForgettingMeasure, *, root: Path) -> Sequence[Row]:
    spec = DataSpec(source=measure.source, format=measure.format, loss_on="everything")
    splits = read_source(spec, root=root).splits
    return splits.get("test", splits["train"])


def _demo_rows(measure: ForgettingMeasure) -> list[Row]:
    """Return documents about the people that the bundled model knows, in new compositions."""
    # The bundled world is built on demand; a study of other text does not pay for it.
    from loratlas.data.demo.text import documents
    from loratlas.data.demo.world import default_world

    drawn = islice(documents(_DEMO_SEED, world=default_world()), 2 * measure.rows)
    return [
        Row(values={"text": text}, where=f"{DEMO_TEXT} row {index + 1}", index=index)
        for index, text in enumerate(drawn)
    ]


def _digest(rows: Sequence[TokenizedRow]) -> str:
    ids = hashlib.sha256()
    for row in rows:
        ids.update(f"{len(row.ids)}\n".encode() + row.ids.astype("<i4").tobytes())
    return digest_of({"measure": FORGETTING, "ids": ids.hexdigest()})
