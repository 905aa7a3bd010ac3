"""The base that a trial was trained on, loaded again."""

from loratlas.errors import RunFolderError
from loratlas.export.subject import Subject
from loratlas.train.base import Base, load_base, pick_device


def base_of(subject: Subject) -> Base:
    """Load the base of a trial on the CPU, as it was trained.

    Raises:
        ModelError: it cannot be found or read.
        RunFolderError: it is no longer the one that the run was made with.
    """
    base = load_base(
        subject.model,
        dtype=subject.training.dtype,
        base_dropout=subject.training.base_dropout,
        device=pick_device("cpu"),
    )
    if subject.base_digest not in (None, base.digest):
        raise RunFolderError(
            f"{base.ref.name}: its weights or configuration are no longer those that the run was "
            "made with"
        )
    return base


def fresh_base(subject: Subject, base: Base) -> Base:
    """Return the base with the dropout that its configuration says, to be kept as a model.

    Args:
        subject: the trial.
        base: its base, which is known to be the right one.
    """
    if subject.training.base_dropout is None:
        return base
    return load_base(
        subject.model,
        dtype=subject.training.dtype,
        base_dropout=None,
        device=base.device,
    )
