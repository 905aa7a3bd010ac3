"""What do the two sides of a benchmark take, and did both do the same work?

A side is a command in processes of its own: ours is one ``loratlas run``, the peer's is
``peer.py`` once a trial. Seconds are those of whole processes, start-up included.
"""

import json
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import Process, SideError, run_process
from work import Key, Materials, Work, peer_configs, study_of

from loratlas.study.folder import open_run

LORATLAS = [sys.executable, "-m", "loratlas.cli.main"]
_PEER = Path(__file__).with_name("peer.py")


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What one trial came to on one side; the first four agree between sides."""

    steps: int
    trainable_parameters: int
    sites: tuple[str, ...]
    num_scored: int
    test_loss: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """What a side took and did.

    Attributes:
        seconds: of all its processes.
        peak_bytes: of the largest of them.
        device_bytes: of the accelerator's memory at the fullest; None on a CPU.
        training_seconds: without loading and scoring.
        trials: what each trial came to.
        engines: what trained them.
    """

    seconds: float
    peak_bytes: int
    device_bytes: int | None
    training_seconds: float
    trials: Mapping[Key, Trained]
    engines: tuple[str, ...]


def run_ours(work: Work, materials: Materials, folder: Path, threads: int) -> Side:
    """Run the study of a work with loratlas.

    Raises:
        SideError: it failed, or one of its trials did.
    """
    study, run = folder / "study.yaml", folder / "run"
    study.write_text(json.dumps(study_of(work, materials), indent=2), encoding="utf-8")
    command = [*LORATLAS, "run", study, "--out", run, "--no-probe"]
    # A cache of its own: what is read of the model counts.
    variables = {**work.environment, "LORATLAS_CACHE": str(folder / "cache")}
    process = run_process("loratlas", command, folder, threads=threads, variables=variables)
    return our_side(run, process)


def our_side(run: Path, process: Process) -> Side:
    """Return what a run folder holds of its trials.

    Raises:
        SideError: one of them is not done.
    """
    trials: dict[Key, Trained] = {}
    with closing(open_run(run)) as store:
        placements = {placement.digest: placement for placement in store.placements()}
        records = list(store.trials().values())
        for record in records:
            placement = placements[record.placement_digest]
            key = (placement.name, record.learning_rate, record.seed)
            if record.status != "done":
                raise SideError(f"loratlas: trial {key} {record.status}: {record.error}")
            score = store.scores(record.digest)["test"]
            trials[key] = Trained(
                steps=len(record.losses),
                trainable_parameters=placement.trainable_parameters,
                sites=tuple(sorted(adapter["path"] for adapter in placement.adapters)),
                num_scored=int(score.num_tokens.sum()),
                test_loss=score.loss,
            )
    packs = {record.pack["number"]: record.pack for record in records if record.pack}
    phases = [
        phase
        for each in [*(record.memory for record in records), *(p["memory"] for p in packs.values())]
        for phase in each.values()
    ]
    on_device = [phase["peak"] or 0 for phase in phases if phase.get("reserved") is not None]
    return Side(
        seconds=process.seconds,
        peak_bytes=process.peak_bytes,
        device_bytes=max(on_device, default=None),
        training_seconds=sum(record.seconds or 0.0 for record in records)
        + sum(pack["seconds"] for pack in packs.values()),
        trials=trials,
        engines=tuple(sorted({record.engine for record in records})),
    )


def run_peer(work: Work, materials: Materials, folder: Path, threads: int) -> Side:
    """Run the trials of a work with PEFT and Trainer, one process after another.

    Raises:
        SideError: one of them failed.
    """
    trials: dict[Key, Trained] = {}
    results: list[dict[str, Any]] = []
    processes: list[Process] = []
    config, result = folder / "config.json", folder / "result.json"
    for key, told in peer_configs(work, materials, folder):
        config.write_text(json.dumps(told), encoding="utf-8")
        command = [sys.executable, _PEER, config, result]
        name = f"the peer, trial {key}"
        processes.append(
            run_process(name, command, folder, threads=threads, variables=work.environment)
        )
        found = json.loads(result.read_text(encoding="utf-8"))
        results.append(found)
        trials[key] = Trained(
            steps=found["steps"],
            trainable_parameters=found["trainable_parameters"],
            sites=tuple(found["sites"]),
            num_scored=found["num_scored"]["test"],
            test_loss=found["losses"]["test"],
        )
    times = len(work.trials) / len(trials)
    on_device = [each["device_bytes"] for each in results if each["device_bytes"] is not None]
    return Side(
        seconds=times * sum(process.seconds for process in processes),
        peak_bytes=max(process.peak_bytes for process in processes),
        device_bytes=max(on_device, default=None),
        training_seconds=times * sum(each["train_seconds"] for each in results),
        trials=trials,
        engines=("PEFT + Trainer",),
    )


def require_same_work(ours: Side, peer: Side, work: Work) -> None:
    """Require that both sides trained the same sites for the same steps and scored the same.

    Losses may differ: the peer groups rows by length, so that each side has an order of its own.

    Raises:
        SideError: they did not.
    """
    if set(ours.trials) != set(work.trials):
        raise SideError(f"loratlas ran the trials {sorted(ours.trials)}, not {sorted(work.trials)}")
    for key, theirs in peer.trials.items():
        mine = ours.trials[key]
        for what in ("steps", "trainable_parameters", "sites", "num_scored"):
            if getattr(mine, what) != getattr(theirs, what):
                raise SideError(
                    f"trial {key}: {what} is {getattr(mine, what)} with loratlas "
                    f"and {getattr(theirs, what)} with the peer"
                )
