"""What each definition sums and counts; those that do not apply raise `NotHere`.

Every function takes a model before its rows and returns sums and counts, an entry a row unless it
says otherwise. How they are averaged is `tallies`; what they are called, `variants`.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from loratlas.measure.audit.rows import Marks, same_marks
from loratlas.measure.audit.seen import NotHere, Seen
from loratlas.measure.audit.tallies import Tally


def scored(seen: Seen) -> Tally:
    """Return the corpus loss's sums: what the study scores, labels shifted once."""
    return seen.tally(seen.rows.scored)


def unshifted(seen: Seen) -> Tally:
    """Score each token by the logits at its own place."""
    return seen.tally(seen.rows.scored, lambda table: table.unshifted)


def unshifted_without_ends(seen: Seen) -> Tally:
    """Score each token but the ends of text by the logits at its own place."""
    return seen.tally(_without_ends(seen), lambda table: table.unshifted)


def first_label_counted(seen: Seen) -> Tally:
    """Count one label more in each row whose first token would have one."""
    whole = [bool(marks[1:].all()) for marks in seen.rows.scored]
    if not any(whole):
        raise NotHere("the first token of a row is not scored here")
    tally = scored(seen)
    return replace(tally, count=tally.count + np.array(whole, dtype=np.int64))


def with_padding(seen: Seen) -> Tally:
    """Score the padding of each row in its batch, too."""
    tally = scored(seen)
    padded = [table.padding for table in seen.tables]
    if not any(map(len, padded)):
        raise NotHere(f"no row is padded in batches of {seen.setting.batch}")
    return Tally(
        nll=tally.nll + np.array([pads.sum() for pads in padded]),
        count=tally.count + np.array([len(pads) for pads in padded], dtype=np.int64),
    )


def _without_ends(seen: Seen) -> Marks:
    rows = seen.rows
    if rows.end_id is None:
        raise NotHere("the tokenizer has no end of text")
    if rows.pad_id != rows.end_id:
        raise NotHere("rows are padded with another token than the end of text")
    marks = tuple(s & ~end for s, end in zip(rows.scored, rows.ends, strict=True))
    if same_marks(marks, rows.scored):
        raise NotHere("no end of text is scored here")
    if not any(mark.any() for mark in marks):
        raise NotHere("nothing but the end of text is scored here")
    return marks


def ends_masked(seen: Seen) -> Tally:
    """Leave every end of text out."""
    return seen.tally(_without_ends(seen))


def ends_scored(seen: Seen) -> Tally:
    """Score every end of text."""
    rows = seen.rows
    if rows.end_id is None:
        raise NotHere("the tokenizer has no end of text")
    marks = tuple(s | end for s, end in zip(rows.scored, rows.ends, strict=True))
    if same_marks(marks, rows.scored):
        raise NotHere("every end of text is scored already")
    return seen.tally(marks)


def prompt_scored(seen: Seen) -> Tally:
    """Score every token that has one before it."""
    if same_marks(seen.rows.everything, seen.rows.scored):
        raise NotHere("every token is scored already")
    return seen.tally(seen.rows.everything)


def prompt_not_scored(seen: Seen) -> Tally:
    """Score the answer alone."""
    answers = seen.rows.answers
    if answers is None:
        raise NotHere("nothing tells an answer from a prompt")
    if same_marks(answers, seen.rows.scored):
        raise NotHere("the answer alone is scored already")
    return seen.tally(answers)


def strided(seen: Seen) -> Tally:
    """Score in windows, every target once; an entry is a window."""
    return seen.windows[0]


def strided_off_by_one(seen: Seen) -> Tally:
    """Weigh each window's mean by the labels that it advances."""
    tally, advanced = seen.windows
    return Tally(nll=tally.nll / tally.count * advanced, count=advanced)


def _altered_start(seen: Seen, start: Sequence[int], drop: int) -> Tally:
    """Score the same tokens behind another beginning."""
    rows = [
        replace(
            row,
            ids=np.concatenate([np.array(start, dtype=np.int32), row.ids[drop:]]),
            scored=np.concatenate([np.zeros(len(start), dtype=np.bool_), row.scored[drop:]]),
        )
        for row in seen.rows.rows
    ]
    # The first token of a row has nothing before it, whichever token that is now.
    rows = [replace(row, scored=row.scored & (np.arange(len(row.ids)) > 0)) for row in rows]
    longest, limit = max(len(row.ids) for row in rows), seen.max_length
    if limit is not None and longest > limit:
        raise NotHere(f"rows of {longest} tokens are longer than the model's {limit} positions")
    found = seen.rescore(rows)
    return Tally(nll=found.nll, count=found.num_tokens)


def bos_missing(seen: Seen) -> Tally:
    """Score without what the tokenizer puts before a text."""
    start = seen.rows.start_ids
    if not start:
        raise NotHere("the tokenizer puts nothing before a text")
    return _altered_start(seen, (), len(start))


def bos_doubled(seen: Seen) -> Tally:
    """Score behind a second beginning of text."""
    start = seen.rows.start_ids
    if not start:
        raise NotHere("the tokenizer puts nothing before a text")
    return _altered_start(seen, (start[0], *start), len(start))


def bos_added(seen: Seen) -> Tally:
    """Score behind a beginning of text that the tokenizer does not put there."""
    if seen.rows.start_ids:
        raise NotHere("the tokenizer puts a beginning before a text itself")
    if seen.rows.bos_id is None:
        raise NotHere("the tokenizer has no beginning of text")
    return _altered_start(seen, (seen.rows.bos_id,), 0)


def with_dropout(seen: Seen) -> Tally:
    """Score with dropout on."""
    return seen.tally(seen.rows.scored, tables=seen.tables_with_dropout)


def per_word(seen: Seen) -> Tally:
    """Count the words of the scored text."""
    return _counted(seen, seen.rows.num_words, "word")


def per_byte(seen: Seen) -> Tally:
    """Count the bytes of the scored text."""
    sizes = np.array([row.num_bytes for row in seen.rows.rows], dtype=np.int64)
    return _counted(seen, sizes, "byte")


def _counted(seen: Seen, count: NDArray[np.int64], unit: str) -> Tally:
    if not count.sum():
        raise NotHere(f"no {unit} of text is scored here")
    return replace(scored(seen), count=count)


def rounded(seen: Seen) -> Tally:
    """Score by logits that were rounded to bfloat16."""
    return seen.tally(seen.rows.scored, lambda table: table.rounded)


def rounded_softmax(seen: Seen) -> Tally:
    """Score by a log-softmax that was computed in bfloat16."""
    return seen.tally(seen.rows.scored, lambda table: table.rounded_softmax)
