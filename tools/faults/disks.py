"""Disks that are full, that may not be written, that are somewhere else.

What needs a file system of its own mounts it, which only the root of a mount namespace may; the
tool gives itself one where it can.
"""

import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from faults.scene import Fault, Scene, listing

OWN_MOUNTS = "LORATLAS_FAULTS_MOUNTS"
"""Set where this process has a mount namespace of its own."""

_SIZE = "48m"
_BLOCK = bytes(2**16)
_QUOTA_BYTES = 90_000
_A_WHILE_S = 0.3


def take_own_mounts() -> None:
    """Begin again in a mount namespace of one's own, where that is allowed."""
    if OWN_MOUNTS in os.environ or shutil.which("unshare") is None:
        return
    for how in (["--mount"], ["--mount", "--map-root-user"]):
        unshare = ["unshare", *how, "--propagation", "private"]
        if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode == 0:
            os.environ[OWN_MOUNTS] = "1"
            os.execvp("unshare", [*unshare, sys.executable, *sys.argv])


def _full_from_the_start(scene: Scene) -> None:
    with _disk(scene) as disk:
        with _kept_full(disk):
            command = scene.start()
            code = command.wait()
            scene.told(command.message)
            scene.check(
                "it fails with one message",
                code != 0 and "loratlas: " in command.message,
                f"exit {code}: {command.message}",
            )
            scene.check_quiet(command)
        scene.check_goes_on()


def _full_for_a_while(scene: Scene) -> None:
    """No checkpoint can be written for a while; training does not need them."""
    with _disk(scene) as disk:
        command = scene.training(step=5)
        with _kept_full(disk):
            time.sleep(_A_WHILE_S)
            scene.check("it goes on meanwhile", not command.has_ended, command.message)
        scene.check_ends(command, 0)
        scene.told("(nothing: the run goes on without checkpoints)")
        scene.check_numbers()


def _full_at_the_end(scene: Scene) -> None:
    """Neither adapters nor records can be written."""
    with _disk(scene) as disk:
        command = scene.training(step=5)
        with _kept_full(disk):
            code = command.wait()
            said = [line for line in command.said if "full" in line or "space" in line]
            scene.told((said or [command.message])[0])
            scene.check("exit 1", code == 1, f"exit {code}: {command.said[-5:]}")
            scene.check("says that the disk is full", bool(said), str(command.said[-5:]))
            scene.check_quiet(command)
        scene.check_goes_on()


def _no_room_for_the_prefix(scene: Scene) -> None:
    with _disk(scene):
        command = scene.start("--prefix-memory", "0", "--prefix-file", "32MB")
        scene.check_ends(command, 0)
        said = [line for line in command.said if "prefix" in line]
        scene.told(said[0] if said else "")
        scene.check("the person is told", bool(said))
        scene.check_numbers()


def _quota(scene: Scene) -> None:
    """No file may grow beyond a size, as under a quota; the store reaches it first."""
    command = scene.start(prepare=_limit_files)
    code = command.wait()
    scene.told(command.message)
    scene.check("it fails with one message", code == 1 and bool(command.message), f"exit {code}")
    scene.check_quiet(command)
    scene.check_goes_on()


def _limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (_QUOTA_BYTES, _QUOTA_BYTES))


def _read_only_parent(scene: Scene) -> None:
    locked = scene.folder / "locked"
    locked.mkdir()
    scene.out = locked / "run"
    with _read_only(locked):
        scene.check_ends(scene.start(), 2, "Read-only file system")
    scene.check_goes_on()


def _read_only_run(scene: Scene) -> None:
    """A finished run on a read-only file system can still be read."""
    scene.check("it runs first", scene.start().wait() == 0)
    before = listing(scene.out)
    with _read_only(scene.out):
        scene.check_ends(scene.start(), 2, "Read-only file system")
        look = scene.ask("results", str(scene.out))
        scene.check("`loratlas results` reads it", look.wait() == 0, look.message)
    scene.check("nothing in it has changed", listing(scene.out) == before)
    scene.check_numbers()


def _behind_a_link(scene: Scene) -> None:
    elsewhere = scene.folder / "elsewhere"
    elsewhere.mkdir()
    scene.out.symlink_to(elsewhere)
    command = scene.training()
    command.send(9)
    command.wait()
    scene.told("(nothing: the run stands where the link leads)")
    scene.check_goes_on()
    scene.check("it is there", (elsewhere / "run.sqlite").is_file())


def _moved(scene: Scene) -> None:
    """A run that was broken off goes on in another place, with another name."""
    command = scene.training()
    command.send(9)
    command.wait()
    moved = scene.folder / "moved"
    scene.out.rename(moved)
    scene.out = moved
    scene.told("(nothing: a run folder may be moved)")
    scene.check_goes_on()


@contextmanager
def _disk(scene: Scene) -> Iterator[Path]:
    """Give a scene a small disk for its run folder."""
    disk = scene.folder / "disk"
    disk.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", str(disk))
    scene.out = disk / "run"
    try:
        yield disk
    finally:
        _mount("--lazy", str(disk), command="umount")


@contextmanager
def _read_only(folder: Path) -> Iterator[None]:
    _mount("--bind", str(folder), str(folder))
    _mount("-o", "remount,ro,bind", str(folder))
    try:
        yield
    finally:
        _mount("--lazy", str(folder), command="umount")


def _mount(*arguments: str, command: str = "mount") -> None:
    subprocess.run([command, *arguments], check=True, capture_output=True)


@contextmanager
def _kept_full(disk: Path) -> Iterator[None]:
    """Leave no byte free on a disk, whatever is deleted on it meanwhile."""
    over, filled = threading.Event(), threading.Event()

    def fill() -> None:
        with (disk / "filler").open("ab", buffering=0) as filler:
            while not over.is_set():
                try:
                    while filler.write(_BLOCK) == len(_BLOCK):
                        pass
                except OSError:
                    filled.set()
                    over.wait(0.001)

    thread = threading.Thread(target=fill, daemon=True)
    thread.start()
    filled.wait(20)
    try:
        yield
    finally:
        over.set()
        thread.join()
        (disk / "filler").unlink()


FAULTS = (
    Fault(name="the disk is full from the start", stage=_full_from_the_start, needs_mounts=True),
    Fault(name="the disk is full for a while", stage=_full_for_a_while, needs_mounts=True),
    Fault(name="the disk is full at the end", stage=_full_at_the_end, needs_mounts=True),
    Fault(
        name="no room for the prefix file",
        stage=_no_room_for_the_prefix,
        study="mixed",  # one of its placements leaves the lower layers alone
        needs_mounts=True,
    ),
    Fault(name="files may not grow, as under a quota", stage=_quota),
    Fault(name="a read-only folder", stage=_read_only_parent, needs_mounts=True),
    Fault(name="a run folder that became read-only", stage=_read_only_run, needs_mounts=True),
    Fault(name="the run folder is a link to elsewhere", stage=_behind_a_link),
    Fault(name="the run folder is moved between two commands", stage=_moved),
)
