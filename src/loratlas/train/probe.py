"""What one placement costs when it trains alone: seconds per step, tokens per second, memory.

Each probe is a process of its own, so that no earlier trial's memory hides in its figures.
The first steps are dropped as warm-up; the seconds are the median of those that follow.
"""

import multiprocessing
import signal
import statistics
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from multiprocessing.resource_tracker import ensure_running
from pathlib import Path

import torch

from loratlas.data.masked import Masking
from loratlas.data.rows import TokenizedRow
from loratlas.errors import TrialError
from loratlas.placement.placement import Placement
from loratlas.train.adapters import new_adapters
from loratlas.train.base import load_base
from loratlas.train.outcome import Fit, Probe
from loratlas.train.randomness import row_order
from loratlas.train.reference import ENGINE, fit
from loratlas.train.trial import ModelRef, TrainingSpec

WARMUP_STEPS = 2
TIMED_STEPS = 6
_PRELOADED = ["torch", "transformers", "peft", "accelerate"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeTask:
    """What a probe process needs to know.

    Attributes:
        model: the base.
        device: device type.
        placement: what is probed, alone.
        rows: the training rows.
        training: the study's training; steps and rates are replaced by the probe's.
        lora_dropout: dropout on the adapters' input.
        num_threads: threads that torch may use on a CPU.
        masking: how rows are masked, for a masked language model.
    """

    model: ModelRef
    device: str
    placement: Placement
    rows: Sequence[TokenizedRow]
    training: TrainingSpec
    lora_dropout: float
    num_threads: int
    masking: Masking | None = None


def probe(task: ProbeTask) -> Probe:
    """Measure a placement in a fresh process.

    A fork server that has imported the libraries, and done nothing else, spares each probe
    the import; its children begin with a heap that no trial has touched.

    Raises:
        TrialError: the steps failed, or the process ended (out of memory, say).
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    others = multiprocessing.active_children()
    try:
        with (
            _interrupts_wait(),
            ProcessPoolExecutor(1, mp_context=context, initializer=_end_quietly) as pool,
        ):
            return _result(pool.submit(measure, task), others)
    except Exception as error:  # whatever the steps can raise
        raise TrialError(f"{type(error).__name__}: {error}") from error


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Keep Ctrl-C from the processes that start meanwhile: they would answer with tracebacks."""
    ensure_running()  # whoever starts it has SIGINT unblocked by it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _result(future: Future[Probe], others: Sequence[BaseProcess]) -> Probe:
    """Wait for a probe, where Ctrl-C is heard again; then the probe is not waited for."""
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        return future.result()
    except KeyboardInterrupt:
        for process in multiprocessing.active_children():
            if process not in others:
                process.terminate()
        raise


def _end_quietly() -> None:
    """Let Ctrl-C end a probe's process at once and without a word."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def measure(task: ProbeTask) -> Probe:
    """Run a few steps of a placement here and measure them; `probe` does so in a process."""
    torch.set_num_threads(task.num_threads)
    base = load_base(
        task.model,
        dtype=task.training.dtype,
        base_dropout=task.training.base_dropout,
        device=torch.device(task.device),
    )
    training = replace(task.training, steps=WARMUP_STEPS + TIMED_STEPS, scheduler="constant")
    gauge = _Gauge(base.device)
    # The timed steps may miss the longest rows, and those decide the peak.
    longest = sorted(task.rows, key=lambda row: -row.num_read)[: training.batch]
    with new_adapters(base, task.placement, seed=0, dropout=task.lora_dropout) as model:

        def train(rows: Sequence[TokenizedRow], spec: TrainingSpec) -> Fit:
            return fit(base, model, rows, spec, learning_rate=1e-4, seed=0, masking=task.masking)

        run = train(task.rows, training)
        train(longest, replace(training, steps=1))
    timed = run.step_seconds[WARMUP_STEPS:]
    tokens = sum(_tokens_of_steps(task.rows, training)[WARMUP_STEPS:])
    return Probe(
        seconds_per_step=statistics.median(timed),
        tokens_per_second=tokens / sum(timed),
        peak_memory_bytes=gauge.peak_bytes(),
        num_steps=len(timed),
        engine=ENGINE,
    )


class _Gauge:
    """Memory above what was in use when the gauge was made."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
            self._before: int | None = torch.cuda.memory_allocated()
        else:
            _reset_high_water_mark()
            self._before = _status_bytes("VmRSS")

    def peak_bytes(self) -> int | None:
        """Return the most bytes in use since, above those before; None if unknown."""
        peak = torch.cuda.max_memory_allocated() if self._cuda else _status_bytes("VmHWM")
        if peak is None or self._before is None:
            return None
        return max(0, peak - self._before)


def _reset_high_water_mark() -> None:
    """Ask Linux to forget the peak that loading the model left behind."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        # Elsewhere, or not allowed: the mark of loading stays in, and the peak reads higher.
        return


def _status_bytes(field: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return None


def _tokens_of_steps(rows: Sequence[TokenizedRow], training: TrainingSpec) -> list[int]:
    """Return the tokens of each optimiser step that are not padding."""
    total = training.steps or 0
    window = training.batch * training.accumulation
    tokens: list[int] = []
    epoch = 0
    while len(tokens) < total:
        order = row_order(0, epoch, len(rows)).tolist()
        lengths = [rows[index].num_read for index in order]
        tokens += [sum(lengths[i : i + window]) for i in range(0, len(lengths), window)]
        epoch += 1
    return tokens[:total]
