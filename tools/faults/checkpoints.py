"""What a machine that dies, or a disk that ages, does to the checkpoints of a run."""

import signal
from collections.abc import Callable
from pathlib import Path

from faults.scene import Fault, Scene

Damage = Callable[[list[Path]], None]
"""Damages checkpoints, which come with the oldest first."""


def _damaged(damage: Damage) -> Callable[[Scene], None]:
    def stage(scene: Scene) -> None:
        command = scene.training(step=4)
        command.send(signal.SIGKILL)
        command.wait()
        there = scene.checkpoints()
        # A third one, where the kill came before the oldest was deleted.
        scene.check("checkpoints are there", len(there) in (2, 3), str(there))
        damage(there)
        again = scene.start()
        scene.check_ends(again, 0)
        scene.check_numbers()
        passed = [line for line in _log(scene) if "is passed over" in line]
        scene.check("the log says what was passed over", bool(passed))
        scene.told(f"(nothing; in run.log: {passed[0].partition(': ')[2]})" if passed else "")

    return stage


def _log(scene: Scene) -> list[str]:
    log = scene.out / "run.log"
    return log.read_text(encoding="utf-8").splitlines() if log.is_file() else []


def _tensors(checkpoint: Path) -> Path:
    return max(checkpoint.glob("*.safetensors"), key=lambda path: path.stat().st_size)


def _tear(checkpoints: list[Path]) -> None:
    file = _tensors(checkpoints[-1])
    with file.open("r+b") as open_file:
        open_file.truncate(file.stat().st_size // 2)


def _flip(checkpoints: list[Path]) -> None:
    file = _tensors(checkpoints[-1])
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    file.write_bytes(data)


def _empty_manifest(checkpoints: list[Path]) -> None:
    (checkpoints[-1] / "manifest.json").write_bytes(b"")


def _without_manifest(checkpoints: list[Path]) -> None:
    (checkpoints[-1] / "manifest.json").unlink()


def _all(checkpoints: list[Path]) -> None:
    for checkpoint in checkpoints:
        _flip([checkpoint])


FAULTS = (
    Fault(name="the newest checkpoint is torn", stage=_damaged(_tear)),
    Fault(name="one bit of the newest checkpoint is flipped", stage=_damaged(_flip)),
    Fault(name="the manifest of the newest checkpoint is empty", stage=_damaged(_empty_manifest)),
    Fault(name="the manifest of the newest checkpoint is lost", stage=_damaged(_without_manifest)),
    Fault(name="every checkpoint is damaged", stage=_damaged(_all)),
)
