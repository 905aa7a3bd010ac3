"""What ends the process that works, and what becomes of its trials."""

import resource
import signal
import time
from collections.abc import Callable

from faults.command import is_alive, seconds_until_gone
from faults.numbers import records
from faults.scene import Fault, Scene
from faults.world import with_code

_MIB = 2**20
_STILL_S = 5.0
_LONGEST_ORPHAN_S = 5.0
_TOLERANCE = 1e-3
"""Relative, of losses after some steps, where sums of a step were taken in another order."""


def _ended_by(number: int) -> Callable[[Scene], None]:
    def stage(scene: Scene) -> None:
        command = scene.training()
        command.the_worker().send_signal(number)
        scene.check_ends(command, 0)
        said = [line for line in command.said if "was ended" in line]
        scene.told(said[0] if said else "")
        scene.check("the person is told", bool(said))
        scene.check("it costs one attempt of one pack", _attempts(scene) == [2, 2, 2, 2])
        scene.check_numbers()

    return stage


def _attempts(scene: Scene) -> list[int]:
    return [trial["attempts"] for trial in records(scene.out)]


def _three_times(scene: Scene) -> None:
    command, worker = scene.start(), None
    for step in (5, 15, 25):
        worker = command.the_worker(but=worker)
        command.until(lambda step=step: scene.newest_step() >= step, f"step {step}")
        worker.send_signal(signal.SIGKILL)
        seconds_until_gone([worker])
    code = command.wait()
    said = [line for line in command.said if "its process was ended 3 times" in line]
    scene.told(said[0] if said else command.message)
    scene.check("exit 1", code == 1, f"exit {code}")
    scene.check("each trial of the pack has failed, and says why", len(said) == 4, str(said))
    scene.check_quiet(command)
    scene.check_goes_on()


def _never_begins(scene: Scene) -> None:
    """Nothing is under way yet whenever the process ends."""
    command, worker = scene.start(), None
    for _ in range(3):
        worker = command.the_worker(but=worker)
        worker.send_signal(signal.SIGKILL)
        seconds_until_gone([worker])
    scene.check_ends(command, 1, "was ended 3 times with no trial under way")
    scene.check_goes_on()


def _probe(scene: Scene) -> None:
    """The command is killed while a process of the worker measures a placement alone."""
    command = scene.start("--probe")
    worker = command.the_worker()
    command.until(lambda: any(child.children() for child in worker.children()), "a probe")
    family = command.family()
    command.send(signal.SIGKILL)
    command.wait()
    scene.told("Killed (says the shell)")
    gone = seconds_until_gone(family, most=_LONGEST_ORPHAN_S)
    left = [" ".join(each.cmdline())[:100] for each in family if is_alive(each)]
    scene.check(f"no process outlives it for {_LONGEST_ORPHAN_S:g} s", gone is not None, str(left))
    scene.check_goes_on()


def _no_more_memory(scene: Scene) -> None:
    """From one step on, the system gives the worker no more memory."""
    command = scene.training()
    worker = command.the_worker()
    limit = worker.memory_info().vms + _MIB
    resource.prlimit(worker.pid, resource.RLIMIT_AS, (limit, limit))
    code = command.wait()
    told = [line for line in command.said if "memory" in line or "was ended" in line]
    scene.told((told or [command.message or "(nothing: what it had was enough)"])[0])
    scene.check("it ends, or fails with a word", code == 0 or bool(told), command.message)
    scene.check_quiet(command)
    if code:
        scene.check_goes_on()
    else:
        scene.check_numbers(_TOLERANCE)


# Memory that a step asks for is refused where it works on more rows, or tokens, than that.
_SMALL_MEMORY = """
import sys
if "--multiprocessing-fork" in sys.orig_argv:
    from loratlas.train.packed.flow import Flow
    from loratlas.train.reference_trainer import ReferenceTrainer

    def refuse():
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate "
                           "8589934592 bytes. Error code 12 (Cannot allocate memory)")

    passed = Flow.passed
    def small(self, units, **more):
        units = list(units)
        if more and sum(row.num_read for unit in units for row in unit.rows) > 80:
            refuse()
        return passed(self, units, **more)
    Flow.passed = small

    step = ReferenceTrainer.training_step
    def small_step(self, model, inputs, *rest, **more):
        if len(inputs["input_ids"]) > 2:
            refuse()
        return step(self, model, inputs, *rest, **more)
    ReferenceTrainer.training_step = small_step
"""


def _small_memory(note: str) -> Callable[[Scene], None]:
    def stage(scene: Scene) -> None:
        around = with_code(scene.folder, scene.world.environment, _SMALL_MEMORY)
        command = scene.start(environment=around)
        scene.check_ends(command, 0)
        log = (scene.out / "run.log").read_text(encoding="utf-8").splitlines()
        said = [line for line in log if "out of memory" in line]
        scene.told(f"(nothing; in run.log: {said[0].partition(': ')[2]})" if said else "")
        scene.check("the log says so", bool(said))
        scene.check(f"`{note}` of the records says so", _noted(scene, note))
        scene.check_numbers(_TOLERANCE)

    return stage


def _noted(scene: Scene, note: str) -> bool:
    trials = records(scene.out)
    if note == "micro_batch":
        return all(trial[note] == 2 for trial in trials)
    return all(trial["pack"][note] for trial in trials)


def _stands_still(scene: Scene) -> None:
    """A worker that stands still for some seconds loses nothing."""
    command = scene.training()
    worker = command.the_worker()
    worker.send_signal(signal.SIGSTOP)
    time.sleep(_STILL_S)
    worker.send_signal(signal.SIGCONT)
    scene.check_ends(command, 0)
    scene.told("(nothing)")
    scene.check_numbers()


FAULTS = (
    Fault(name="the worker is killed, as for lack of memory", stage=_ended_by(signal.SIGKILL)),
    Fault(name="a segmentation fault of the worker", stage=_ended_by(signal.SIGSEGV)),
    Fault(name="the worker aborts", stage=_ended_by(signal.SIGABRT)),
    Fault(name="a bus error of the worker", stage=_ended_by(signal.SIGBUS)),
    Fault(name="the worker is killed three times in one pack", stage=_three_times),
    Fault(name="the worker is killed three times before any trial", stage=_never_begins),
    Fault(name="kill -9 of the command while a placement is probed", stage=_probe),
    Fault(name="the worker stands still for 5 s", stage=_stands_still),
    Fault(name="the system gives the worker no more memory", stage=_no_more_memory),
    Fault(name="out of memory in a pack: smaller passes", stage=_small_memory("halved")),
    Fault(
        name="out of memory in Trainer: smaller micro-batches, the same steps",
        stage=_small_memory("micro_batch"),
        study="trainer",
    ),
)
