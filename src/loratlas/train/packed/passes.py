"""How many rows go through the base at once, and what happens when memory does not suffice?

A window that is longer than a pass is divided by itself, whatever it is packed with: so a trial's
sums are always taken in the same order. Only running out of memory changes that order.
"""

from collections.abc import Iterator, Sequence

from loratlas.data.rows import TokenizedRow
from loratlas.train.packed.flow import Unit


class Passes:
    """Divides the rows of an optimiser step.

    Args:
        limit: most tokens of one pass.

    Attributes:
        limit: the same, after what was learned from running out of memory.
        num_halved: how often it was halved.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.num_halved = 0

    def cut(self, units: Sequence[Unit]) -> Iterator[list[Unit]]:
        """Yield the passes of a step, each with at most one part of a trial."""
        waiting: list[Unit] = []
        for unit in units:
            for part in self._divided(unit):
                together = any(part.slot == other.slot for other in waiting)
                if waiting and (together or _tokens([*waiting, part]) > self.limit):
                    yield waiting
                    waiting = []
                waiting.append(part)
        if waiting:
            yield waiting

    def halve(self, units: Sequence[Unit]) -> bool:
        """Make passes smaller; return False where they already hold single rows."""
        passes = list(self.cut(units))
        divisible = [each for each in passes if sum(len(unit.rows) for unit in each) > 1]
        if not divisible:
            return False
        self.limit = max(map(_tokens, divisible)) // 2
        self.num_halved += 1
        return True

    def _divided(self, unit: Unit) -> Iterator[Unit]:
        """Yield a trial's rows in as few parts as fit, of about equal length."""
        num_parts = -(-_tokens([unit]) // self.limit)
        wished = _tokens([unit]) / num_parts
        rows: list[TokenizedRow] = []
        for row in unit.rows:
            length = sum(each.num_read for each in rows)
            if rows and (length + row.num_read > self.limit or length >= wished):
                yield Unit(unit.slot, rows)
                rows = []
            rows.append(row)
        yield Unit(unit.slot, rows)


def _tokens(units: Sequence[Unit]) -> int:
    return sum(row.num_read for unit in units for row in unit.rows)
