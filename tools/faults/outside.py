"""What lies outside a run: trackers, the network, the clock."""

import ast
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from faults.scene import Fault, Scene
from faults.world import STUDY, with_code

_AT_ONCE_S = 90.0

_READS_OF_THE_CLOCK = {
    "study/store.py": "when a trial ended, for people",
    "study/tracking/to_mlflow.py": "what MLflow shows",
    "study/tracking/to_tensorboard.py": "what TensorBoard shows",
}
"""Where the wall clock is read, and what for; everything else uses clocks that never jump."""

_WALL_CLOCK = {
    ("time", "time"),
    ("time", "time_ns"),
    ("time", "ctime"),
    ("time", "localtime"),
    ("time", "gmtime"),
    ("time", "strftime"),
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("datetime", "today"),
    ("date", "today"),
}

# A day to and fro, five times a second.
_JUMPS = """
import time
_time, _time_ns = time.time, time.time_ns
def _days():
    return int(time.monotonic() * 5) % 3 - 1
time.time = lambda: _time() + 86400 * _days()
time.time_ns = lambda: _time_ns() + 86400 * 10**9 * _days()
"""

# What would leave the machine, or ask who is out there, is noted and fails.
_NO_NETWORK = """
import os, socket
def _refuse(*address, **_):
    with open({log!r}, "a") as log:
        log.write(f"{{address}}\\n")
    raise OSError(101, "Network is unreachable")
_connect = socket.socket.connect
def connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6):
        _refuse(address)
    return _connect(self, address)
socket.socket.connect = connect
socket.getaddrinfo = _refuse
"""

_SHORT_LIMITS = """
import sys
if "--multiprocessing-fork" in sys.orig_argv:
    import loratlas.study.tracking.mirror as mirror
    mirror.LIMIT_S, mirror.LAST_WAIT_S = 4.0, 12.0
"""

_HANGING = """
import time
def Settings(**_):
    return None
def init(**_):
    time.sleep(1e6)
"""

_DOWN = """
def Settings(**_):
    return None
def init(**_):
    raise ConnectionError("the server does not answer")
"""


def _tracker(package: str, says: str) -> Callable[[Scene], None]:
    def stage(scene: Scene) -> None:
        around = with_code(scene.folder, scene.world.environment, _SHORT_LIMITS)
        wandb = scene.folder / "injected" / "wandb"
        wandb.mkdir()
        (wandb / "__init__.py").write_text(package, encoding="utf-8")
        _track(scene, "wandb")
        command = scene.start(environment=around)
        scene.check_ends(command, 0)
        said = [line for line in command.said if "were not mirrored" in line]
        scene.told(said[0] if said else "")
        scene.check(f"says “{says}”", any(says in line for line in said), str(command.said[-3:]))
        scene.check_numbers()

    return stage


def _server_is_gone(scene: Scene) -> None:
    """MLflow itself, with the address of a server that is not there."""
    if find_spec("mlflow") is None:
        scene.check("MLflow is installed", holds=False)
        return
    around = {
        **with_code(scene.folder, scene.world.environment, _SHORT_LIMITS.replace("4.0", "30.0")),
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }
    _track(scene, "mlflow")
    command = scene.start(environment=around)
    scene.check_ends(command, 0)
    said = [line for line in command.said if "were not mirrored" in line]
    scene.told(said[0] if said else "")
    scene.check("the person is told", bool(said), str(command.said[-3:]))
    scene.check_numbers()


def _track(scene: Scene, tracker: str) -> None:
    file = scene.folder / STUDY
    file.write_text(f"{file.read_text()}track: [{tracker}]\n", encoding="utf-8")


def _no_network(scene: Scene) -> None:
    around, attempts = _without_network(scene)
    command = scene.start(environment=around)
    scene.check_ends(command, 0)
    scene.told("(nothing: it needs no network)")
    scene.check("nothing tried to reach the network", not attempts.exists())
    scene.check_numbers()


def _offline(scene: Scene) -> None:
    """Offline mode, and a model that is not on this machine."""
    around, attempts = _without_network(scene)
    _name_a_model_of_the_hub(scene)
    scene.check_ends(scene.start(environment=around), 2, "nobody/nothing")
    scene.check("nothing tried to reach the network", not attempts.exists())
    scene.check("nothing was begun", not scene.out.exists())


def _network_is_gone(scene: Scene) -> None:
    """Not offline, and a model that only the hub could have."""
    around, attempts = _without_network(scene)
    del around["HF_HUB_OFFLINE"]
    _name_a_model_of_the_hub(scene)
    began = time.monotonic()
    scene.check_ends(scene.start(environment=around), 2, "nobody/nothing")
    scene.check(f"within {_AT_ONCE_S:g} s", time.monotonic() - began < _AT_ONCE_S)
    scene.check("the network was tried", attempts.exists())
    scene.check("nothing was begun", not scene.out.exists())


def _without_network(scene: Scene) -> tuple[dict[str, str], Path]:
    """Return an environment in which nothing is reached, and where attempts are noted."""
    log = scene.folder / "network.txt"
    code = _NO_NETWORK.format(log=str(log))
    return with_code(scene.folder, scene.world.environment, code), log


def _name_a_model_of_the_hub(scene: Scene) -> None:
    file = scene.folder / STUDY
    file.write_text(file.read_text().replace("demo:gpt2", "nobody/nothing"), encoding="utf-8")


def _clock_jumps(scene: Scene) -> None:
    around = with_code(scene.folder, scene.world.environment, _JUMPS)
    command = scene.start("--checkpoint", "0.1", environment=around)
    scene.check_ends(command, 0)
    scene.told("(nothing)")
    scene.check_numbers()


def _clock_is_not_read(scene: Scene) -> None:
    found = reads_of_the_clock()
    scene.told("(nothing: only timestamps for people are read from the wall clock)")
    scene.check(
        "the wall clock is read for timestamps alone",
        found <= set(_READS_OF_THE_CLOCK),
        str(sorted(found - set(_READS_OF_THE_CLOCK))),
    )


def reads_of_the_clock() -> set[str]:
    """Return the modules of loratlas that read a clock which people or the network may set."""
    spec = find_spec("loratlas")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    return {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if any(map(_reads_it, ast.walk(ast.parse(path.read_text(encoding="utf-8")))))
    }


def _reads_it(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom) and node.module == "time":
        return any(("time", alias.name) in _WALL_CLOCK for alias in node.names)
    if not isinstance(node, ast.Attribute):
        return False
    owner = node.value
    name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
    return (name, node.attr) in _WALL_CLOCK


FAULTS = (
    Fault(name="a tracker hangs", stage=_tracker(_HANGING, "no answer within")),
    Fault(name="a tracker is down", stage=_tracker(_DOWN, "ConnectionError")),
    Fault(name="the server of a tracker is gone", stage=_server_is_gone),
    Fault(name="no network at all", stage=_no_network),
    Fault(name="a model of the hub in offline mode", stage=_offline),
    Fault(name="the network has gone away", stage=_network_is_gone),
    Fault(name="the clock jumps by days", stage=_clock_jumps),
    Fault(name="who reads the wall clock", stage=_clock_is_not_read),
)
