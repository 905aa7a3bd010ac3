"""How do the rows of all trials go through the base, each from its lowest adapted layer upward?

Below its lowest adapted layer a trial computes what the frozen base computes: those hidden states
come from the prefix, once per example, and no gradient is taken there. Trials join the flow at
their own layer. Where others flow already, or begin at another depth of the same block, a trial
passes its first block by itself, so that no gradient is taken below its lowest adapter.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import torch

from loratlas.data.rows import TokenizedRow
from loratlas.train.packed.backbone import Backbone
from loratlas.train.packed.batch import Layout, Targets, read_ids
from loratlas.train.packed.entry import Entry, entry_of
from loratlas.train.packed.masks import Masks
from loratlas.train.packed.sites import Routing, Span, adapted
from loratlas.train.packed.slots import Slot
from loratlas.train.prefix import PrefixCache

_PREFIX_UNITS = 4096
"""Most tokens of one pass that only fills the prefix."""


class Unit(NamedTuple):
    """Rows of one trial."""

    slot: int
    rows: Sequence[TokenizedRow]


class _Group(NamedTuple):
    """The units that begin at one place."""

    entry: Entry
    units: list[Unit]


@dataclass(frozen=True, kw_only=True, slots=True)
class Passed:
    """What a pass through the blocks gives.

    Attributes:
        hidden: last hidden states of what is predicted, shape (scored, width).
        targets: what is predicted there; rows are numbered in the order of `units`.
        units: the rows that were passed, in the order of the pass.
    """

    hidden: torch.Tensor
    targets: Targets
    units: tuple[Unit, ...]


class Flow:
    """The base and the adapters of a pack, ready to be run on rows.

    Args:
        model: the base.
        backbone: the same, taken apart.
        layout: how rows are laid out.
        slots: the adapters of each trial.
        prefix: keeps hidden states of the frozen base.
    """

    def __init__(
        self,
        model: Any,
        backbone: Backbone,
        layout: Layout,
        slots: Sequence[Slot],
        prefix: PrefixCache,
    ) -> None:
        self.slots = slots
        self._model = model
        self._backbone = backbone
        self._layout = layout
        self._prefix = prefix
        self._entries = [entry_of(slot.placement) for slot in slots]
        self.routing = Routing()

    @property
    def vocabulary(self) -> int:
        """Logits of one prediction."""
        return int(self._model.config.get_text_config().vocab_size)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Put the adapters into the base for a while."""
        with self._backbone.opened(), adapted(self._model, self.slots, self.routing):
            yield

    def begin_step(self, step: int) -> None:
        """Begin an optimiser step: gradients are zero, and dropout draws anew."""
        self.routing.masks = Masks(step, by_row=self._layout.fills_up)
        for slot in self.slots:
            slot.begin_step()

    def begin_scoring(self) -> None:
        """Let every input of the adapters through."""
        self.routing.masks = None

    def passed(self, units: Iterable[Unit], *, keep: bool = True) -> Passed:
        """Run rows through the blocks.

        Args:
            units: at most one for each trial.
            keep: whether the hidden states of these rows are worth keeping in the prefix.
        """
        groups = [
            _Group(entry, list(of_entry))
            for entry, of_entry in groupby(
                self.in_order(units), key=lambda unit: self._entries[unit.slot]
            )
        ]
        passed = self._in_stages(groups, keep) if self._backbone.num_blocks else self._whole(groups)
        self.routing.spans = ()
        return passed

    def logits_of(self, slot: int, rows: Sequence[TokenizedRow]) -> torch.Tensor:
        """Return the logits of what is predicted of rows, by one slot, (scored, vocabulary)."""
        self.begin_scoring()
        passed = self.passed([Unit(slot, rows)])
        return self.logits(passed.hidden, [Span(slot, 0, len(passed.hidden))])

    def in_order(self, units: Iterable[Unit]) -> list[Unit]:
        """Return units with those that begin lowest first, as a pass takes them."""
        return sorted(units, key=lambda unit: (self._entries[unit.slot], unit.slot))

    def bare(self, rows: Sequence[TokenizedRow]) -> torch.Tensor:
        """Return the last hidden states of what is predicted of rows, without any adapter.

        The base is run block by block: trials may enter before any of them.
        """
        self.routing.spans = ()
        inputs = self._layout.inputs(rows)
        hidden: torch.Tensor | None = None
        for layer in range(self._backbone.num_blocks):
            hidden, _ = self._backbone.run(inputs, first=layer, stop=layer + 1, entering=hidden)
        last, _ = self._backbone.run(inputs, first=self._backbone.num_blocks, entering=hidden)
        return last.flatten(0, 1)[self._layout.targets(rows).place]

    def logits(self, hidden: torch.Tensor, spans: Sequence[Span]) -> torch.Tensor:
        """Return the head's logits for last hidden states, (tokens, width) → (tokens, vocabulary).

        Args:
            hidden: last hidden states.
            spans: which of them belong to which trial, for adapters on the head.
        """
        first = spans[0].start if spans else 0
        self.routing.spans = [Span(s.slot, s.start - first, s.stop - first) for s in spans]
        logits = self._backbone.head(hidden[None]).squeeze(0)
        self.routing.spans = ()
        return logits

    def _whole(self, groups: Sequence[_Group]) -> Passed:
        """Run each group through the whole model by itself."""
        parts = []
        for group in groups:
            rows = _rows(group.units)
            hidden = self._run(group.units, None, 0, None)
            parts.append((hidden, self._layout.targets(rows), len(rows)))
        units = tuple(unit for group in groups for unit in group.units)
        return Passed(
            hidden=torch.cat([h.flatten(0, 1)[targets.place] for h, targets, _ in parts]),
            targets=_joined([targets for _, targets, _ in parts], [count for *_, count in parts]),
            units=units,
        )

    def _in_stages(self, groups: Sequence[_Group], keep: bool) -> Passed:
        """Let each group join the flow at its own layer."""
        states = self._prefix_states(groups, keep)
        flowing: list[Unit] = []
        hidden: torch.Tensor | None = None
        at = 0
        for layer, of_layer in groupby(groups, key=lambda group: group.entry.layer):
            entering = [(group.units, _entering(group.units, states, layer)) for group in of_layer]
            if not flowing and len(entering) == 1:
                flowing, hidden = entering[0]
                at = layer
                continue
            if flowing:
                hidden = self._run(flowing, hidden, at, layer) if layer > at else hidden
                entering.insert(0, (flowing, hidden))
            at = min(layer + 1, self._backbone.num_blocks)
            through = [self._run(units, before, layer, at) for units, before in entering]
            flowing = [unit for units, _ in entering for unit in units]
            hidden = torch.cat(through, dim=1)
        hidden = self._run(flowing, hidden, at, None)
        targets = self._layout.targets(_rows(flowing))
        return Passed(
            hidden=hidden.flatten(0, 1)[targets.place], targets=targets, units=tuple(flowing)
        )

    def _run(
        self, units: Sequence[Unit], hidden: torch.Tensor | None, first: int, stop: int | None
    ) -> torch.Tensor:
        if first == stop:
            assert hidden is not None
            return hidden
        self.routing.spans = self._spans(units)
        inputs = self._layout.inputs(_rows(units))
        found, _ = self._backbone.run(inputs, first=first, stop=stop, entering=hidden)
        return found

    def _spans(self, units: Sequence[Unit]) -> list[Span]:
        spans, start = [], 0
        for unit in units:
            stop = start + sum(map(self._layout.units, unit.rows))
            spans.append(Span(unit.slot, start, stop))
            start = stop
        return spans

    def _prefix_states(
        self, groups: Sequence[_Group], keep: bool
    ) -> dict[tuple[int, bytes], torch.Tensor]:
        """Return the hidden states at which the groups enter, by layer and tokens."""
        states: dict[tuple[int, bytes], torch.Tensor] = {}
        missing: dict[bytes, TokenizedRow] = {}
        layers: set[int] = set()
        for group in groups:
            layer = group.entry.layer
            for row in _rows(group.units) if layer else ():
                key = read_ids(row).tobytes()
                if (layer, key) in states:
                    continue
                found = self._prefix.get(layer, read_ids(row))
                if found is None:
                    missing[key] = row
                    layers.add(layer)
                else:
                    states[layer, key] = found.to(self._model.device)
        for rows in _cut(list(missing.values()), self._layout):
            states |= self._computed(rows, layers, keep)
        return states

    @torch.no_grad()
    def _computed(
        self, rows: Sequence[TokenizedRow], layers: set[int], keep: bool
    ) -> dict[tuple[int, bytes], torch.Tensor]:
        """Run the bare base on rows; return, and keep, their hidden states before some layers."""
        self.routing.spans = ()
        last = max(layers)
        inputs = self._layout.inputs(rows)
        below = sorted(layers - {last})
        found, tapped = self._backbone.run(inputs, stop=last, taps=below)
        states = {}
        lengths = [len(row.ids) for row in rows]
        for layer, hidden in [*tapped.items(), (last, found)]:
            for row, own in zip(rows, torch.split(hidden[0], lengths), strict=True):
                states[layer, read_ids(row).tobytes()] = own
                if keep:
                    self._prefix.put(layer, read_ids(row), own)
        return states


def _rows(units: Iterable[Unit]) -> list[TokenizedRow]:
    return [row for unit in units for row in unit.rows]


def _entering(
    units: Sequence[Unit], states: dict[tuple[int, bytes], torch.Tensor], layer: int
) -> torch.Tensor | None:
    """Return the hidden states of units before a layer; None before the first."""
    if not layer:
        return None
    found = [states[layer, read_ids(row).tobytes()] for row in _rows(units)]
    return torch.cat(found)[None]


def _cut(rows: Sequence[TokenizedRow], layout: Layout) -> Iterator[list[TokenizedRow]]:
    """Yield rows in parts that fit one pass."""
    part: list[TokenizedRow] = []
    for row in rows:
        if part and sum(map(layout.units, part)) + layout.units(row) > _PREFIX_UNITS:
            yield part
            part = []
        part.append(row)
    if part:
        yield part


def _joined(parts: Sequence[Targets], num_rows: Sequence[int]) -> Targets:
    """Return the targets of several batches as of one; places are those in their own batch."""
    starts = [sum(num_rows[:number]) for number in range(len(parts))]
    return Targets(
        place=torch.cat([part.place for part in parts]),
        wanted=torch.cat([part.wanted for part in parts]),
        row=torch.cat([part.row + start for part, start in zip(parts, starts, strict=True)]),
    )
