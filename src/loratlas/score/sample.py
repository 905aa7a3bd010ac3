"""Which rows are gradients taken of, and what cannot be scored by them at all?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.pytorch_utils import Conv1D

from loratlas.anatomy.sites import Site
from loratlas.data.rows import TokenizedRow
from loratlas.errors import TrialError
from loratlas.score.scorer import Subject
from loratlas.train.randomness import masks

_FEWEST_ROWS = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """The rows of a subject in which something is predicted, in order.

    Attributes:
        rows: as the model reads them; see `as_read`.
        num_left_out: rows in which nothing is predicted.
    """

    rows: tuple[TokenizedRow, ...]
    num_left_out: int

    @property
    def num_scored(self) -> NDArray[np.int64]:
        """Predictions that are scored in each row, shape (rows,)."""
        return np.array([row.num_scored for row in self.rows], dtype=np.int64)


def sample_of(subject: Subject) -> Sample:
    """Return the rows that gradients are taken of.

    Raises:
        TrialError: there are too few of them; `why_no_gradients` says so beforehand.
    """
    rows = [as_read(subject, number) for number, row in enumerate(subject.rows) if row.num_scored]
    if len(rows) < _FEWEST_ROWS:
        raise TrialError(_too_few(subject.rows))
    return Sample(rows=tuple(rows), num_left_out=len(subject.rows) - len(rows))


def why_no_gradients(subject: Subject) -> str | None:
    """Return why no gradient scorer can score this, or None; nothing is computed."""
    rows = subject.rows
    if sum(row.num_scored > 0 for row in rows) < _FEWEST_ROWS:
        return _too_few(rows)
    unmasked = subject.masking is None and any(row.masked is None for row in rows)
    if subject.base.task == "masked" and unmasked:
        return "the rows of this masked language model have no masks, and nothing says how to mask"
    return next(filter(None, (_why_not(site, subject) for site in subject.sites)), None)


def holder_of(model: Any, site: Site) -> tuple[Any, str]:
    """Return the module that holds a site's weight, and the name of the weight in it.

    Raises:
        AttributeError: the model has no such module.
    """
    if site.kind != "expert":
        return model.get_submodule(site.path), "weight"
    path, _, name = site.path.rpartition(".")
    return model.get_submodule(path), name


def as_read(subject: Subject, number: int) -> TokenizedRow:
    """Return a row as a model reads it: of a masked one as a trial does in its first epoch.

    The trial has the subject's seed and reads all training rows.
    """
    row, masking = subject.rows[number], subject.masking
    if masking is None:
        return row
    index = number if subject.indices is None else subject.indices[number]
    return masking.corrupt(row, masks(subject.seed, 0, index))


def _too_few(rows: Sequence[TokenizedRow]) -> str:
    count = sum(row.num_scored > 0 for row in rows)
    return (
        f"{count} of {len(rows)} rows have a token that is scored; at least {_FEWEST_ROWS} are "
        "needed"
    )


def _why_not(site: Site, subject: Subject) -> str | None:
    if site.kind == "embedding":
        return f"{site.path} is an embedding table, and gradients are scored of linear maps alone"
    try:
        module, name = holder_of(subject.base.model, site)
        weight = getattr(module, name)
    except AttributeError:
        return f"{type(subject.base.model).__name__} has no {site.path}"
    if site.kind == "expert":
        return _why_no_parameter(site, weight)
    if not isinstance(module, torch.nn.Linear | Conv1D):
        return f"{site.path} is a {type(module).__name__}; gradients are known of Linear and Conv1D"
    return None


def _why_no_parameter(site: Site, weight: torch.Tensor) -> str | None:
    maps = site.num_experts or 1
    if not weight.is_floating_point():
        return f"{site.path} is quantised ({weight.dtype}), and torch takes no gradient of it"
    if weight.numel() != maps * site.d_in * site.d_out:
        return f"{site.path} has the shape {tuple(weight.shape)}, which its site does not"
    return None
