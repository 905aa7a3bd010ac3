"""Write a trial of a run for elsewhere: weights or configuration, whole or not at all."""

from pathlib import Path
from typing import Any

from loratlas.errors import ExportError, did_you_mean
from loratlas.export.card import FILE_NAME, card
from loratlas.export.copied import copy_adapter
from loratlas.export.evidence import evidence_of
from loratlas.export.push import push, require_repository
from loratlas.export.subject import Subject, subject_of
from loratlas.export.targets import TARGETS, require_expressible
from loratlas.export.trainers import trainer_files
from loratlas.export.vllm import ADAPTER, serve_file
from loratlas.new_folder import new_folder, require_new
from loratlas.placement.placement import Placement
from loratlas.study.store import Store

_WEIGHTS = ("peft", "uniform", "merged", "vllm")
_PADDED = ("uniform", "vllm")


def export(
    run: Path,
    store: Store,
    wanted: str,
    target: str,
    *,
    out: Path | None = None,
    fill: str | None = None,
    repository: str | None = None,
    api: Any = None,
) -> dict[str, Any]:
    """Write a trial for a consumer.

    Args:
        run: the run folder.
        store: its store.
        wanted: which trial, as `loratlas.export.choice` reads it.
        target: which consumer.
        out: the new folder; exports/PLACEMENT-seedSEED-TARGET in the run folder when None.
        fill: which sites get adapters of zeros, as `loratlas.export.fill` reads it.
        repository: where it is uploaded, None for nowhere.
        api: of the hub, for tests.

    Returns:
        keys as the ``export`` command documents them.

    Raises:
        ExportError: the request is wrong, or the target cannot express the placement.
        VerificationError: what was written is not what was trained; nothing is left of it.
    """
    _require_target(target, fill, repository)
    subject = subject_of(run, store, wanted)
    require_expressible(target, subject)
    folder = _default(run, subject, target) if out is None else out
    require_new(folder)
    with new_folder(folder) as partial:
        difference = _write(partial, store, subject, target, fill)
        files = sorted(str(p.relative_to(partial)) for p in partial.rglob("*") if p.is_file())
    found = {
        "placement": subject.name,
        "seed": subject.trial.seed,
        "learning_rate": subject.trial.learning_rate,
        "trial": subject.trial.digest,
        "target": target,
        "folder": str(folder),
        "files": files,
        "trainable_parameters": subject.placement.trainable_parameters,
        "logits_differ_by": difference,
        "pushed_to": None,
    }
    if repository is not None:
        message = f"{subject.name}, seed {subject.trial.seed}, exported by loratlas"
        found["pushed_to"] = push(_pushed(folder, target), repository, message=message, api=api)
    return found


def _require_target(target: str, fill: str | None, repository: str | None) -> None:
    if target not in TARGETS:
        raise ExportError(
            f"--to {target}: there is no such target{did_you_mean(target, TARGETS)}; "
            f"it is one of {', '.join(TARGETS)}"
        )
    if fill is not None and target not in _PADDED:
        raise ExportError(f"--fill: {target} takes the sites as they are; use --to uniform")
    if repository is not None:
        require_repository(repository)
        if target not in _WEIGHTS:
            raise ExportError(
                f"--push: {target} is a configuration, without weights; "
                f"use --to {', '.join(_WEIGHTS)}"
            )


def _default(run: Path, subject: Subject, target: str) -> Path:
    name = Path(str(subject.trial.adapter)).name
    return run / "exports" / f"{name}-{target}"


def _write(
    folder: Path, store: Store, subject: Subject, target: str, fill: str | None
) -> float | None:
    """Write the files of a target; return by how much logits differ, None where none are taken."""
    if target not in _WEIGHTS:
        for name, text in trainer_files(target, subject).items():
            (folder / name).write_text(text, encoding="utf-8")
        return None
    # What was written is known only afterwards: a target may pad and fill.
    written, difference = _weights(folder, subject, target, fill)
    place = folder / ADAPTER if target == "vllm" else folder
    text = card(target, subject, written, evidence_of(store, subject.name))
    (place / FILE_NAME).write_text(text, encoding="utf-8")
    return difference


def _weights(
    folder: Path, subject: Subject, target: str, fill: str | None
) -> tuple[Placement, float | None]:
    if target == "peft":
        copy_adapter(subject, folder)
        return subject.placement, None
    # Imported here: these load torch, which copies and configurations do without.
    from loratlas.export.adapters import uniform_adapter
    from loratlas.export.base import base_of, fresh_base
    from loratlas.export.merged import merge

    base = base_of(subject)
    if target == "merged":
        return subject.placement, merge(fresh_base(subject, base), subject, folder)
    place = folder / ADAPTER if target == "vllm" else folder
    written, difference = uniform_adapter(base, subject, place, fill=fill)
    if target == "vllm":
        served = serve_file(subject, written.adapters[0].rank)
        (folder / "vllm.yaml").write_text(served, encoding="utf-8")
    return written, difference


def _pushed(folder: Path, target: str) -> Path:
    """Return the folder that holds the weights."""
    return folder / ADAPTER if target == "vllm" else folder
