"""What a person changes after a run began: its study, its rows, its base; and a rate too high."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults.numbers import differences, numbers
from faults.scene import Fault, Scene, listing
from faults.world import STUDY

_HALF_A_MODEL = 1000


def _changed(change: Callable[[Path], None], says: str) -> Callable[[Scene], None]:
    def stage(scene: Scene) -> None:
        first = scene.start()
        scene.check("it runs first", first.wait() == 0, first.message)
        before = listing(scene.out)
        change(scene.folder)
        scene.check_ends(scene.start(), 2, says)
        scene.check("the refused command changed nothing", listing(scene.out) == before)
        beside = scene.start("--new-version")
        code = beside.wait()
        scene.check("--new-version runs beside it", code == 0, beside.message)
        version = scene.out.with_name("run-v2")
        scene.check("it says where", "run folder: run-v2" in beside.printed)
        scene.check("run-v2 holds a whole run", (version / "run.sqlite").is_file())
        scene.check("the first run stays as it was", listing(scene.out) == before)
        again = scene.start("--new-version")
        scene.check(
            "once more: the same version",
            again.wait() == 0 and not scene.out.with_name("run-v3").exists(),
            again.message,
        )

    return stage


def _edit_study(folder: Path) -> None:
    file = folder / STUDY
    file.write_text(file.read_text().replace("steps: 6", "steps: 7"))


def _edit_rows(folder: Path) -> None:
    file = folder / "rows.jsonl"
    first, *others = file.read_text().splitlines()
    row = json.loads(first)
    row["completion"] += " indeed"
    file.write_text("\n".join([json.dumps(row), *others]) + "\n")


def _edit_base(folder: Path) -> None:
    """Change one weight in its last bit."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    file = folder / "model" / "model.safetensors"
    tensors = load_file(file)
    name = max(tensors, key=lambda each: tensors[each].size)
    weights = tensors[name].copy()
    weights.reshape(-1)[_HALF_A_MODEL] = np.nextafter(
        weights.reshape(-1)[_HALF_A_MODEL], weights.dtype.type(1)
    )
    save_file({**tensors, name: weights}, file, metadata={"format": "pt"})


def _diverges(scene: Scene) -> None:
    command = scene.start()
    scene.check_ends(command, 0)
    said = [line for line in command.said if "diverged" in line]
    scene.told(said[0] if said else "")
    scene.check("the person is told of each", len(said) == 4, str(said))
    stands = _json(scene, "status", str(scene.out), "--json")
    scene.check("4 of 8 trials are counted as diverged", stands["diverged"] == 4, str(stands))
    found = _json(scene, "results", str(scene.out), "--json")
    rates = {arm["learning_rate"] for arm in found["placements"].values()}
    scene.check("the rate that diverged is never best", rates == {1e-14}, str(rates))
    before = numbers(scene.out)
    again = scene.start()
    scene.check(
        "once more: not tried again",
        again.wait() == 0 and not differences(before, numbers(scene.out)),
        again.message,
    )


def _json(scene: Scene, *arguments: str) -> dict[str, Any]:
    command = scene.ask(*arguments)
    command.wait()
    found: dict[str, Any] = json.loads(command.printed)
    return found


FAULTS = (
    Fault(
        name="the study file is edited",
        study="local",
        stage=_changed(_edit_study, "training.steps was 6, now 7"),
    ),
    Fault(
        name="a row of the data changes", study="local", stage=_changed(_edit_rows, "data_rows was")
    ),
    Fault(
        name="one weight of the base changes", study="local", stage=_changed(_edit_base, "base was")
    ),
    Fault(name="a learning rate makes trials diverge", study="diverging", stage=_diverges),
)
