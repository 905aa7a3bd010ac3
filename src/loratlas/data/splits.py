"""Which rows go to training, validation and test?

The rule, in the order in which it is applied:

1. A split that the source has of its own (a hub split, a file) is used for that split. A split
   that it lacks is drawn from the rows of train: `validation` when a size is given, `test`
   always, and then its size must be given. A size of 0 leaves validation or test empty.
2. One text never stands in two splits. A row of train or validation whose content also stands in
   the source's own test split is dropped, and a row of train that stands in its own validation
   split. The whole own split counts, not only the rows drawn from it, so that the size of test
   does not change what is trained on.
3. Where several splits are drawn from the rows of train, repeated rows are dropped first and the
   earliest is kept. Where only one is, repeated rows stay, as the source has them, and are counted.
4. Rows are drawn with a generator of `split_seed` and the split's number alone: a permutation of
   the rows, from which test takes the first, validation the next and train the next. So a larger
   train contains the smaller one, and does not change the others. Rows then keep the order of
   the source.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from loratlas.data.formats import Example, Examples
from loratlas.data.sources import SPLIT_NAMES, SplitName
from loratlas.data.spec import DataSpec
from loratlas.errors import DataError

_DRAWING_ORDER: tuple[SplitName, ...] = ("test", "validation", "train")


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnSplit:
    """The rows of one split, and what was left out of the pool they were drawn from."""

    pool: str = ""
    """What the pool is called; splits drawn from one pool share the counts below."""
    examples: tuple[Example, ...] = ()
    num_unanswered: int = 0
    """Rows left out because their answer is empty."""
    num_duplicates: int = 0
    """Repeated rows in the pool; dropped or kept as `duplicates_dropped` says."""
    duplicates_dropped: bool = False
    num_overlaps: int = 0
    """Rows dropped because they also stand in test or validation."""


@dataclass(slots=True)
class _Pool:
    """Rows that one or more splits are drawn from, and what was taken out of them."""

    name: str
    examples: Sequence[Example]
    num_rows: int
    num_unanswered: int
    num_duplicates: int = 0
    duplicates_dropped: bool = False
    num_overlaps: int = 0


def draw_splits(
    usable: Mapping[SplitName, Examples], spec: DataSpec, *, names: Mapping[SplitName, str]
) -> dict[SplitName, DrawnSplit]:
    """Divide the rows of a source by the rule of this module.

    Args:
        usable: the source's rows by its own splits; train is there.
        spec: sizes and split seed.
        names: what to call each of the source's splits in a message.

    Returns:
        All three splits; validation and test may be empty.

    Raises:
        DataError: a size cannot be, a test split is missing, or there are too few rows.
    """
    sizes = _sizes(spec)
    pools = {
        split: _Pool(
            name=names[split],
            examples=found.examples,
            num_rows=found.num_rows,
            num_unanswered=found.num_unanswered,
        )
        for split, found in usable.items()
        if sizes[split] != 0
    }
    if "test" not in pools and sizes["test"] is None:
        raise DataError(f"data.test: {names['train']} has no test split; say how many rows to draw")
    members = {split: [split] for split in pools}
    for split in _DRAWING_ORDER:
        if split not in pools and sizes[split]:
            members["train"].append(split)
    _drop_overlaps(pools)
    for split, pool in pools.items():
        _count_duplicates(pool, drop=len(members[split]) > 1)
    drawn = {split: DrawnSplit() for split in SPLIT_NAMES}
    for split, pool in pools.items():
        drawn |= _draw(
            pool, members[split], sizes, seed=[spec.split_seed, SPLIT_NAMES.index(split)]
        )
    return drawn


def _sizes(spec: DataSpec) -> dict[SplitName, int | None]:
    sizes: dict[SplitName, int | None] = {
        "train": spec.train,
        "validation": spec.validation,
        "test": spec.test,
    }
    for split, size in sizes.items():
        least = 1 if split == "train" else 0
        if size is not None and size < least:
            raise DataError(f"data.{split}: {size} rows cannot be drawn; at least {least}")
    if spec.split_seed < 0:
        raise DataError(f"data.split_seed: {spec.split_seed} is negative; a seed is 0 or more")
    return sizes


def _drop_overlaps(pools: Mapping[SplitName, _Pool]) -> None:
    taken: set[object] = set()
    for split in _DRAWING_ORDER:
        if split not in pools:
            continue
        pool = pools[split]
        kept = [example for example in pool.examples if example.content not in taken]
        pool.num_overlaps = len(pool.examples) - len(kept)
        pool.examples = kept
        taken.update(example.content for example in kept)


def _count_duplicates(pool: _Pool, *, drop: bool) -> None:
    first = {example.content: example for example in reversed(pool.examples)}
    pool.num_duplicates = len(pool.examples) - len(first)
    if drop:
        pool.examples = [item for item in pool.examples if first[item.content] is item]
        pool.duplicates_dropped = True


def _draw(
    pool: _Pool,
    members: Sequence[SplitName],
    sizes: Mapping[SplitName, int | None],
    *,
    seed: list[int],
) -> dict[SplitName, DrawnSplit]:
    order = [split for split in _DRAWING_ORDER if split in members]
    _check_enough(pool, order, sizes)
    shuffled = np.random.default_rng(seed).permutation(len(pool.examples)).tolist()
    drawn: dict[SplitName, DrawnSplit] = {}
    start = 0
    for split in order:
        size = sizes[split]
        end = len(shuffled) if size is None else start + size
        drawn[split] = DrawnSplit(
            pool=pool.name,
            examples=tuple(pool.examples[place] for place in sorted(shuffled[start:end])),
            num_unanswered=pool.num_unanswered,
            num_duplicates=pool.num_duplicates,
            duplicates_dropped=pool.duplicates_dropped,
            num_overlaps=pool.num_overlaps,
        )
        start = end
    return drawn


def _check_enough(
    pool: _Pool, order: Sequence[SplitName], sizes: Mapping[SplitName, int | None]
) -> None:
    # a split without a size takes what is left, and needs one row at least
    asked = {split: sizes[split] or 1 for split in order}
    needed = sum(asked.values())
    if needed <= len(pool.examples):
        return
    wanted = " + ".join(
        f"{size:,} {split}" if sizes[split] else f"at least 1 {split}"
        for split, size in asked.items()
    )
    total = f" = {needed:,}" if len(order) > 1 else ""
    lost = [
        f"{count:,} {reason}"
        for count, reason in (
            (pool.num_unanswered, "without an answer"),
            (pool.num_duplicates if pool.duplicates_dropped else 0, "repeated"),
            (pool.num_overlaps, "also in test or validation"),
        )
        if count
    ]
    after = f" ({pool.num_rows:,} less {', '.join(lost)})" if lost else ""
    raise DataError(
        f"{pool.name}: too few rows: usable {len(pool.examples):,}{after}, "
        f"asked for {wanted}{total}"
    )
