"""What do all methods have in common that read gradients, one pass over the rows?"""

from dataclasses import replace
from typing import Protocol

from loratlas.allocate.table import Granularity
from loratlas.score.backward import read_backward
from loratlas.score.capture import Seen
from loratlas.score.remarks import remarks
from loratlas.score.resampling import MOST_BYTES, MOST_GROUPS, Kept, affordable_groups, num_groups
from loratlas.score.sample import Sample, sample_of, why_no_gradients
from loratlas.score.scorer import Found, Needs, Subject
from loratlas.score.slices import Slices


class Ledger(Protocol):
    """Keeps what a method needs of the gradients that go by."""

    def add(self, seen: Seen) -> None:
        """Take down one site in one pass."""

    def found(self) -> Found:
        """Return what was found, once all rows were added; what was read is filled in later.

        Raises:
            TrialError: a gradient is no number.
        """


class GradientScorer:
    """A method that reads gradients; those that differ give their ledger."""

    higher_is_better = True
    granularity: Granularity = "site"
    needs = Needs(labels=True, gradients=True)
    most_groups = MOST_GROUPS

    def why_not(self, subject: Subject) -> str | None:
        """Return what has no gradient, or what would take too much memory, or None."""
        why = why_no_gradients(subject)
        return self._why_too_large(subject) if why is None else why

    def measure(self, subject: Subject) -> Found:
        """Score the sites; standard errors are over rows.

        Raises:
            TrialError: a loss or a gradient is no number, or fewer than two rows predict anything.
        """
        sample, slices = sample_of(subject), Slices(subject)
        ledger = self._ledger(subject, sample, slices)
        reading = read_backward(subject, sample, ledger.add)
        found = ledger.found()
        return replace(
            found,
            num_tokens=reading.num_tokens,
            expert_tokens=reading.expert_tokens,
            num_forwards=len(sample.rows),
            num_backwards=len(sample.rows),
            notes=(
                *remarks(subject, sample, slices, reading, found.values),
                *found.notes,
                *self._on_groups(subject, sample),
            ),
        )

    def _ledger(self, subject: Subject, sample: Sample, slices: Slices) -> Ledger:
        raise NotImplementedError

    def _kept(self, subject: Subject) -> Kept:  # noqa: ARG002
        """Return what is kept of all sites, where that is much."""
        return Kept(0, 0)

    def _groups(self, subject: Subject, sample: Sample) -> int:
        """Return the groups of rows that sums are kept for."""
        groups = affordable_groups(self._kept(subject), len(sample.rows), self.most_groups)
        assert groups, "why_not lets no such subject pass"
        return groups

    def _why_too_large(self, subject: Subject) -> str | None:
        kept = self._kept(subject)
        if affordable_groups(kept, len(subject.rows), self.most_groups):
            return None
        return (
            f"its sums of gradients at {len(subject.sites)} sites would take "
            f"{_size(kept.num_bytes(2))}, and {_size(MOST_BYTES)} is the most; score fewer sites, "
            f"or lower {self._lower(subject)}"
        )

    def _lower(self, subject: Subject) -> str:
        """Return what makes the sums larger, in words."""
        raise NotImplementedError

    def _on_groups(self, subject: Subject, sample: Sample) -> tuple[str, ...]:
        wanted = num_groups(len(sample.rows), self.most_groups)
        groups = self._groups(subject, sample)
        if groups == wanted:
            return ()
        size = _size(self._kept(subject).num_bytes(wanted))
        return (
            f"Standard errors are from {groups} groups of rows: {wanted} would take {size}, and "
            f"{_size(MOST_BYTES)} is the most.",
        )


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.1f} GiB"
