"""Every definition of perplexity, for a model and rows that a person names."""

from dataclasses import replace
from pathlib import Path

from loratlas.errors import NotYetError
from loratlas.measure.audit.seen import Seen, Setting
from loratlas.measure.audit.variants import Reading, read
from loratlas.study.audit_data import NamedRows, named_rows
from loratlas.train.base import load_base, max_positions, pick_device
from loratlas.train.trial import ModelRef


def read_named(
    model: str, named: NamedRows, *, batch: int, window: int | None
) -> tuple[dict[str, Reading], int, int]:
    """Read the variants of a model on named rows; dropout is as its configuration says.

    Args:
        model: hub name, folder, or a bundled model.
        named: the rows.
        batch: rows of a batch, where a figure depends on it.
        window: longest stretch of the strided windows; None takes the model's positions.

    Returns:
        the readings, the rows scored, and their scored tokens.

    Raises:
        RequestError: model or rows cannot be read.
    """
    base = load_base(
        ModelRef(name=model), dtype="fp32", base_dropout=None, device=pick_device("auto")
    )
    if base.task != "causal":
        raise NotYetError(
            f"{model}: the audit knows the variants of causal language models; this one is of "
            f"another task, {base.task}"
        )
    rows = named_rows(_from_here(named), base, root=Path.cwd())
    setting = Setting(
        batch=batch, window=window if window is not None else max_positions(base.model)
    )
    readings = read(Seen(base.model, rows, setting, device=base.device))
    return readings, len(rows.rows), sum(row.num_scored for row in rows.rows)


def _from_here(named: NamedRows) -> NamedRows:
    """Name a local file by its whole path: on a command line it may lie anywhere."""
    file = Path(named.data).absolute()
    try:
        return replace(named, data=str(file)) if file.is_file() else named
    except OSError:  # no file can have such a name; whoever reads it says so
        return named
