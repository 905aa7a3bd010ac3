"""What a person at the terminal, or the machine's own end of a session, sends to a run."""

import signal
import time
from collections.abc import Callable

from faults.command import Command, seconds_until_gone
from faults.scene import Fault, Scene

_AT_ONCE_S = 10.0
_SOME_STEPS_S = 0.2
_GOES_ON = "the same command goes on"


def _stop_once(send: Callable[[Command], None]) -> Callable[[Scene], None]:
    def stage(scene: Scene) -> None:
        # No checkpoint is due for long: one that is there was made for the stop.
        command = scene.under_way("--checkpoint", "1000")
        time.sleep(_SOME_STEPS_S)
        family = command.family()
        send(command)
        scene.check_ends(command, 1, _GOES_ON)
        scene.check("the step is finished and kept", scene.newest_step() > 0)
        scene.check("no process is left", seconds_until_gone(family) is not None)
        scene.check_goes_on()

    return stage


def _ctrl_c(command: Command) -> None:
    command.send_all(signal.SIGINT)


def _terminate(command: Command) -> None:
    command.send(signal.SIGTERM)


def _terminate_all(command: Command) -> None:
    command.send_all(signal.SIGTERM)


def _twice(scene: Scene) -> None:
    """The worker is frozen, so that the first Ctrl-C can come to nothing."""
    command = scene.training()
    worker = command.the_worker()
    worker.send_signal(signal.SIGSTOP)
    command.send(signal.SIGINT)
    command.until(lambda: any("once more" in line for line in command.said), "an answer")
    scene.check("after the first: “stopping after this step”", not command.has_ended)
    began = time.monotonic()
    command.send(signal.SIGINT)
    scene.check_ends(command, 1, _GOES_ON)
    scene.check(f"ends within {_AT_ONCE_S:g} s", time.monotonic() - began < _AT_ONCE_S)
    scene.check_goes_on()


def _while_reading(scene: Scene) -> None:
    command = scene.start()
    command.until(lambda: any("reading" in line for line in command.said), "reading the model")
    command.send_all(signal.SIGINT)
    scene.check_ends(command, 1, "stopped")
    scene.check_goes_on()


def _while_starting(scene: Scene) -> None:
    """The process that works is only loading."""
    command = scene.start()
    command.the_worker()
    command.send_all(signal.SIGINT)
    scene.check_ends(command, 1, "stopped")
    scene.check_goes_on()


def _at_the_start(scene: Scene) -> None:
    """Before the command listens at all: Python is only loading."""
    command = scene.start()
    time.sleep(0.3)
    command.send_all(signal.SIGINT)
    code = command.wait()
    scene.told(command.message)
    scene.check("ends without success", code != 0, f"exit {code}")
    scene.check_goes_on()


def _hang_up(scene: Scene) -> None:
    command = scene.training()
    family = command.family()
    command.send_all(signal.SIGHUP)
    command.wait()
    scene.told("(nothing: the terminal is gone)")
    scene.check("no process is left", seconds_until_gone(family) is not None)
    scene.check_goes_on()


FAULTS = (
    Fault(name="Ctrl-C once", stage=_stop_once(_ctrl_c)),
    Fault(name="Ctrl-C twice, the worker being frozen", stage=_twice),
    Fault(name="Ctrl-C while the model is read", stage=_while_reading),
    Fault(name="Ctrl-C while the worker starts", stage=_while_starting),
    Fault(name="Ctrl-C in the first moment", stage=_at_the_start),
    Fault(name="SIGTERM", stage=_stop_once(_terminate)),
    Fault(name="SIGTERM to every process, as systemd sends it", stage=_stop_once(_terminate_all)),
    Fault(name="SIGHUP: the terminal is closed", stage=_hang_up),
)
