"""What one placement costs when it trains alone: seconds, memory by phase, operations.

Each probe is a process of its own, so that no earlier trial's memory hides in its figures.
The first steps are dropped as warm-up; the seconds are the median of those that follow. The
bare base's forward pass is timed on the same rows, so that what adapters add can be told.
"""

import multiprocessing
import os
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from multiprocessing.resource_tracker import ensure_running
from typing import Any

import torch

from loratlas.data.masked import Masking
from loratlas.data.rows import TokenizedRow
from loratlas.errors import TrialError
from loratlas.placement.placement import Placement
from loratlas.train.adapters import new_adapters
from loratlas.train.base import Base, load_base
from loratlas.train.gauge import Gauge, above_before
from loratlas.train.operations import cost_of_roles, count_and_plan, num_positions, on_device
from loratlas.train.outcome import Fit, Probe
from loratlas.train.randomness import row_order
from loratlas.train.reference import ENGINE, fit
from loratlas.train.trial import ModelRef, TrainingSpec

WARMUP_STEPS = 2
TIMED_STEPS = 6
_PRELOADED = ["torch", "transformers", "peft", "accelerate"]

Scorer = Callable[[Base, Any, Sequence[TokenizedRow]], object]
"""Scores rows with a model that carries adapters; a function that a process can be sent."""


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
        scored: rows whose scoring is measured; the longest of the study decide the peak.
        score: what scores them; None leaves that phase out.
    """

    model: ModelRef
    device: str
    placement: Placement
    rows: Sequence[TokenizedRow]
    training: TrainingSpec
    lora_dropout: float
    num_threads: int
    masking: Masking | None = None
    scored: Sequence[TokenizedRow] = ()
    score: Scorer | None = None


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
    """Let Ctrl-C end a probe's process at once and without a word, and its parent's end, too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "a probe has a process of its own"
    parent.join()
    os._exit(1)


def measure(task: ProbeTask) -> Probe:
    """Run a few steps of a placement here and measure them; `probe` does so in a process."""
    torch.set_num_threads(task.num_threads)
    gauge = Gauge(torch.device(task.device))
    with gauge.phase("load"):
        base = _load(task)
    # The timed steps may miss the longest rows, and those decide the peak.
    longest = sorted(task.rows, key=lambda row: -row.num_read)[: task.training.batch]
    with new_adapters(base, task.placement, seed=0, dropout=task.lora_dropout) as model:
        with gauge.phase("train"):
            timed = _train(task, base, model, longest)
        if task.score is not None:
            with gauge.phase("score"):
                task.score(base, model, task.scored)
    windows = _windows(task.rows, task.training)
    forward = _forward_seconds(base, windows, task.training.batch)
    flops, roles = _operations(task, base, longest)
    return Probe(
        seconds_per_step=statistics.median(timed),
        tokens_per_second=sum(row.num_read for rows in windows for row in rows) / sum(timed),
        peak_memory_bytes=above_before(gauge.phases["train"]),
        num_steps=len(timed),
        engine=ENGINE,
        step_seconds=timed,
        forward_seconds=forward,
        num_positions=_num_positions(base, windows, task.training.batch),
        memory=gauge.phases,
        flops=flops,
        roles=roles,
    )


def _operations(
    task: ProbeTask, base: Base, longest: Sequence[TokenizedRow]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the operations of the longest row, and the cost of each role."""
    placement, training, dropout = task.placement, task.training, task.lora_dropout
    try:
        with new_adapters(base, placement, seed=0, dropout=dropout) as model:
            flops = count_and_plan(base, model, placement, training, longest[0], dropout=dropout)
        return flops, cost_of_roles(base, placement, training, longest, dropout=dropout)
    except Exception as error:  # an unheard-of model must not cost the figures measured before
        return {"unknown": f"{type(error).__name__}: {error}".split("\n")[0]}, []


def _load(task: ProbeTask) -> Base:
    return load_base(
        task.model,
        dtype=task.training.dtype,
        base_dropout=task.training.base_dropout,
        device=torch.device(task.device),
    )


def _train(task: ProbeTask, base: Base, model: Any, longest: Sequence[TokenizedRow]) -> list[float]:
    """Train a few steps, and one on the longest rows; return the seconds of those that count."""

    def train(rows: Sequence[TokenizedRow], steps: int) -> Fit:
        training = replace(task.training, steps=steps, scheduler="constant")
        run = fit(base, model, rows, training, learning_rate=1e-4, seed=0, masking=task.masking)
        if run.micro_batch is not None:  # figures of another trial than the one that was asked for
            raise MemoryError(
                f"micro-batches of {training.batch} rows do not fit; of {run.micro_batch} they do"
            )
        return run

    timed = train(task.rows, WARMUP_STEPS + TIMED_STEPS).step_seconds[WARMUP_STEPS:]
    train(longest, 1)
    return list(timed)


def _forward_seconds(
    base: Base, windows: Sequence[Sequence[TokenizedRow]], batch: int
) -> list[float]:
    """Return the seconds of the bare base's forward pass over the rows of each step."""
    base.model.eval()
    seconds = []
    for rows in (windows[0], *windows):  # the first is warm-up
        inputs = [on_device(base, micro_batch) for micro_batch in _cut(rows, batch)]
        _synchronise(base.device)
        began = time.perf_counter()
        with torch.no_grad():
            for each in inputs:
                base.model(**each)
        _synchronise(base.device)
        seconds.append(time.perf_counter() - began)
    return seconds[1:]


def _synchronise(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()


def _num_positions(base: Base, windows: Sequence[Sequence[TokenizedRow]], batch: int) -> int:
    """Return the tokens of all steps, padding included."""
    batches = (each for rows in windows for each in _cut(rows, batch))
    return sum(num_positions(base, base.collator(each)) for each in batches)


def _cut(rows: Sequence[TokenizedRow], batch: int) -> list[Sequence[TokenizedRow]]:
    """Return the micro-batches of a step."""
    return [rows[start : start + batch] for start in range(0, len(rows), batch)]


def _windows(rows: Sequence[TokenizedRow], training: TrainingSpec) -> list[Sequence[TokenizedRow]]:
    """Return the rows of each timed step, in the order of training."""
    window = training.batch * training.accumulation
    found: list[Sequence[TokenizedRow]] = []
    epoch = 0
    while len(found) < WARMUP_STEPS + TIMED_STEPS:
        ordered = [rows[index] for index in row_order(0, epoch, len(rows)).tolist()]
        found += [ordered[start : start + window] for start in range(0, len(ordered), window)]
        epoch += 1
    return found[WARMUP_STEPS : WARMUP_STEPS + TIMED_STEPS]
