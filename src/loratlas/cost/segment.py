"""What does one stretch of a pass compute and hold?

Forward it leaves behind what autograd keeps of it; backward it lets that go and leaves the
gradients of its adapters.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from loratlas.cost.setting import Pass, Setting
from loratlas.cost.tape import Node, Tape, Value

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


def run_segment(
    setting: Setting,
    ranks: Mapping[str, int],
    forward: Forward,
    source: Source,
    memory_source: Source | None = None,
    *,
    holds_input: bool = True,
) -> Segment:
    """Run a stretch forward and back on a tape of its own.

    Args:
        setting: the setting.
        ranks: the rank of every adapted site, by path.
        forward: the stretch.
        source: its input, whose memory is counted.
        memory_source: what an encoder gave, counted elsewhere; None where it reads none.
        holds_input: whether the input stays until the stretch has its output, as the loop over
            blocks has it.
    """
    tape = Tape(on_cpu=setting.on_cpu)
    run = Pass(tape=tape, setting=setting, ranks=ranks)
    value = _outside(run, source, counted=True)
    memory = None if memory_source is None else _outside(run, memory_source, counted=False)
    inputs = (value.node, None if memory is None else memory.node)
    held = [value] if holds_input else []
    given = [value]
    del value
    result = forward(run, given.pop(), memory)
    del memory
    held.clear()
    forward_peak, last, size = tape.peak, result.node, result.num_elements * result.width
    del result
    return _closed(tape, last, size, forward_peak, inputs)


def _outside(run: Pass, source: Source, *, counted: bool) -> Value:
    return run.tape.outside(
        source.num_elements,
        run.setting.width,
        wants_gradient=source.wants_gradient,
        counted=counted,
    )


def _closed(
    tape: Tape,
    last: Node | None,
    size: int,
    forward_peak: int,
    inputs: tuple[Node | None, Node | None],
) -> Segment:
    """Run the way back of a stretch and return its account."""
    saved = tape.live
    gives = {}
    if last is not None:
        tape.peak = 0
        gives = tape.backward(last, tape.new(size, 1))
    kept = sum(storage.size for storage in tape.kept)
    sizes = [gives[node].size if node in gives else 0 for node in inputs]
    return Segment(
        flops=tape.flops,
        forward_peak=forward_peak,
        saved=saved if last is not None else 0,
        backward_peak=tape.peak,
        kept=kept,
        wants_gradient=last is not None,
        gives_gradient=sizes[0],
        gives_memory_gradient=sizes[1],
    )
