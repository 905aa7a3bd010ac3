"""What does one stretch of a pass compute and hold?

Forward it leaves behind what autograd keeps of it; backward it lets that go and leaves the
gradients of its adapters. A checkpointed stretch leaves its input alone behind; backward it is
run forward once more, up to the last step that keeps something
(``torch.utils.checkpoint`` with ``use_reentrant=False`` stops there), and then back.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from loratlas.cost.setting import Adapted, Pass, Setting
from loratlas.cost.tape import Node, Tape, Value

RANDOM_STATE = 5056
"""Bytes of the generator's state, which PyTorch keeps to draw the same dropout again."""

Forward = Callable[[Pass, Value, Value | None], Value]
"""A stretch of the forward pass, from its input and what an encoder gave."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """The account of one stretch of a pass, its input included where it is counted.

    Attributes:
        flops: operations by (growth, whether backward).
        forward_peak: most bytes in use on the way forward.
        saved: bytes that autograd keeps until the way back.
        backward_peak: most bytes in use on the way back.
        kept: bytes of the adapters' gradients.
        wants_gradient: whether the result wants one.
        gives_gradient: bytes of the gradient that goes on to the input, 0 for none.
        gives_memory_gradient: bytes of the one that goes on to the encoder.
    """

    flops: Mapping[tuple[str, bool], int]
    forward_peak: int
    saved: int
    backward_peak: int
    kept: int
    wants_gradient: bool
    gives_gradient: int = 0
    gives_memory_gradient: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """What a stretch starts from: how many elements, and whether they want a gradient."""

    num_elements: int
    wants_gradient: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """A stretch of the pass, and what it is run on.

    Attributes:
        setting: the setting.
        adapted: where the adapters are.
        forward: what it does.
        source: its input, whose memory is counted.
        memory_source: what an encoder gave, counted elsewhere; None where it reads none.
        holds_input: whether the input stays until the stretch has its output, as the loop over
            blocks has it.
    """

    setting: Setting
    adapted: Adapted
    forward: Forward
    source: Source
    memory_source: Source | None = None
    holds_input: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class _Forward:
    """A stretch that has been run forward."""

    tape: Tape
    last: Node | None
    result_bytes: int
    peak: int
    inputs: tuple[Node | None, Node | None]


def run_segment(stretch: Stretch) -> Segment:
    """Run a stretch forward and back on a tape of its own."""
    return _back(_forward(stretch))


def run_checkpointed(stretch: Stretch) -> Segment:
    """Run a stretch forward, and on the way back once more, keeping its input in between."""
    again = _forward(stretch)
    repeated, gradient = again.tape.flops_until_saved, again.result_bytes
    segment = _back(again)
    if not segment.wants_gradient:
        return segment
    flops = Counter(segment.flops)
    flops.update({(growth, True): count for (growth, _), count in repeated.items()})
    return replace(
        segment,
        flops=flops,
        forward_peak=_forward(stretch, saves=False).peak,
        saved=stretch.source.num_elements * stretch.setting.width + RANDOM_STATE,
        backward_peak=max(again.peak + gradient, segment.backward_peak),
    )


def _forward(stretch: Stretch, *, saves: bool = True) -> _Forward:
    tape = Tape(on_cpu=stretch.setting.on_cpu, saves=saves)
    run = Pass(tape=tape, setting=stretch.setting, adapted=stretch.adapted)
    value = _outside(run, stretch.source, counted=True)
    other = stretch.memory_source
    memory = None if other is None else _outside(run, other, counted=False)
    inputs = (value.node, None if memory is None else memory.node)
    held = [value] if stretch.holds_input else []
    given = [value]
    del value
    result = stretch.forward(run, given.pop(), memory)
    del memory
    held.clear()
    size = result.num_elements * result.width
    return _Forward(tape=tape, last=result.node, result_bytes=size, peak=tape.peak, inputs=inputs)


def _outside(run: Pass, source: Source, *, counted: bool) -> Value:
    return run.tape.outside(
        source.num_elements,
        run.setting.width,
        wants_gradient=source.wants_gradient,
        counted=counted,
    )


def _back(way: _Forward) -> Segment:
    """Run the way back of a stretch and return its account."""
    tape, last = way.tape, way.last
    saved = tape.live
    gives = {}
    if last is not None:
        tape.peak = 0
        gives = tape.backward(last, tape.new(way.result_bytes, 1))
    kept = sum(storage.size for storage in tape.kept)
    sizes = [gives[node].size if node in gives else 0 for node in way.inputs]
    return Segment(
        flops=tape.flops,
        forward_peak=way.peak,
        saved=saved if last is not None else 0,
        backward_peak=tape.peak,
        kept=kept,
        wants_gradient=last is not None,
        gives_gradient=sizes[0],
        gives_memory_gradient=sizes[1],
    )
