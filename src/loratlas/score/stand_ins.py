"""What do maps of a model read when the outputs of others are replaced?

With stand-ins for what a map puts out, the model itself shows what it does with each output.
"""

from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from loratlas.anatomy.sites import Anatomy, Site
from loratlas.data.rows import TokenizedRow, frozen_ids, frozen_marks
from loratlas.score.scorer import Subject
from loratlas.train.packed.batch import Whole

StandIn = Callable[[torch.Tensor], torch.Tensor]
"""Given what a map has put out, returns what to read instead, of the same shape."""


def read_with(
    subject: Subject,
    stand_ins: Mapping[str, StandIn],
    readers: Collection[str],
    *,
    num_rows: int,
    num_tokens: int,
) -> dict[str, torch.Tensor]:
    """Return what maps read in one forward pass over equal rows; the base stays as it is.

    Args:
        subject: what is scored.
        stand_ins: for the outputs of maps, by their paths.
        readers: paths of the maps that are watched.
        num_rows: rows of the pass, all alike.
        num_tokens: tokens of each row, of its source as well.

    Returns:
        what each reader got at its last call; those that did not run are missing.
    """
    base, found = subject.base, dict[str, torch.Tensor]()
    inputs = inputs_of_length(subject, num_rows=num_rows, num_tokens=num_tokens)
    with ExitStack() as stack:
        stack.callback(base.model.train, base.model.training)
        base.model.eval()
        for path, stand_in in stand_ins.items():
            module = base.model.get_submodule(path)
            stack.callback(module.register_forward_hook(_replacing(stand_in)).remove)
        for path in readers:
            module = base.model.get_submodule(path)
            stack.callback(module.register_forward_pre_hook(_noting(found, path)).remove)
        base.model(**inputs)
    return found


def inputs_of_length(subject: Subject, *, num_rows: int, num_tokens: int) -> dict[str, Any]:
    """Return the model's arguments for equal rows of so many tokens."""
    row = _of_length(subject.rows[0], num_tokens)
    layout = Whole(collator=subject.base.collator, device=subject.base.device)
    return layout.inputs([row] * num_rows)


def only_reader(site: Site, part: str, anatomy: Anatomy) -> Site | None:
    """Return the one map of a part in the same block and family as a site; None for any others."""
    found = [
        other
        for other in anatomy.sites
        if (other.stack, other.layer) == (site.stack, site.layer)
        and (other.role.family, other.role.part) == (site.role.family, part)
    ]
    return found[0] if len(found) == 1 and found[0].kind != "expert" else None


def _replacing(stand_in: StandIn) -> Callable[..., torch.Tensor]:
    def hook(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
        return stand_in(output)

    return hook


def _noting(found: dict[str, torch.Tensor], path: str) -> Callable[..., None]:
    def hook(module: Any, args: tuple[Any, ...]) -> None:  # noqa: ARG001
        found[path] = args[0]

    return hook


def _of_length(row: TokenizedRow, num_tokens: int) -> TokenizedRow:
    """Return a row with so many tokens, cut or repeated."""

    def resized(ids: NDArray[np.int32] | None) -> NDArray[np.int32] | None:
        return None if ids is None else frozen_ids(np.resize(ids, num_tokens))

    return replace(
        row,
        ids=frozen_ids(np.resize(row.ids, num_tokens)),
        scored=frozen_marks(np.resize(row.scored, num_tokens)),
        source=resized(row.source),
        masked=resized(row.masked),
        types=resized(row.types),
    )
