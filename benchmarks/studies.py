"""What do the benchmarks of learned placements share? Studies with changes, runs, tables, pages.

They work in this process: what is scored and trained is what ``loratlas run`` and ``loratlas
score`` would score and train.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from side_by_side import RESULTS, parser_of

from loratlas.cli.progress import TerminalListener
from loratlas.errors import LoratlasError
from loratlas.numerics import fix_order_of_sums
from loratlas.report.narrow import UNKNOWN
from loratlas.study.options import RunOptions
from loratlas.study.spec import StudySpec, load_study

STUDIES = Path(__file__).parents[1] / "studies"
BUNDLED = (STUDIES / "learned-facts.yaml", STUDIES / "learned-format.yaml")

Page = tuple[str, str]
"""Name of a page of results, and its text."""


def derived(file: Path, changes: Mapping[str, Any], out: Path) -> StudySpec:
    """Write a study file with some keys changed, and read it.

    Sections that are changed keep their other keys; placements are replaced as a whole, and None
    leaves a key out. What lies beside the first file is found from the second.

    Raises:
        StudyError: one of the two is no study.
    """
    original = load_study(file)
    document = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
    if isinstance(document["model"], Mapping):
        document["model"]["name"] = original.model.name
    else:
        document["model"] = original.model.name
    document["data"]["source"] = _from(original.root, document["data"]["source"])
    for key, value in changes.items():
        is_section = key in ("data", "training") and value is not None
        document[key] = {**document[key], **value} if is_section else value
    kept = {key: value for key, value in document.items() if value is not None}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    return load_study(out)


def smaller(file: Path, out: Path) -> StudySpec:
    """Return a quick instance of a study: few rows, steps and seeds, the same placements."""
    study = load_study(file)
    return derived(
        file,
        {
            "name": f"{study.name}-quick",
            "data": {"train": 96, "validation": 24, "test": 24},
            "training": {"steps": 40, "learning_rate": list(study.training.learning_rate[:2])},
            "seeds": 2,
            "sweep_seeds": 1,
        },
        out,
    )


def run(study: StudySpec, folder: Path) -> None:
    """Carry out what is missing of a study, as ``loratlas run --no-probe`` does.

    Raises:
        LoratlasError: as for `run_study`.
    """
    from loratlas.study.run import run_study

    with TerminalListener() as listener:
        run_study(study, folder, listener, RunOptions(probe=False))


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def signed(value: float | None) -> str:
    """Return a difference with its sign, a dash where it is unknown."""
    return UNKNOWN if value is None else f"{value:+.4f}"


def span(interval: Sequence[float] | None, digits: int = 4) -> str:
    """Return an interval in words, a dash where there is none."""
    return UNKNOWN if interval is None else " to ".join(f"{end:.{digits}f}" for end in interval)


def options_of(doc: str | None, argv: Sequence[str] | None, *, studies: bool) -> argparse.Namespace:
    """Return the options of a benchmark of learned placements; torch follows them.

    Args:
        doc: of the script.
        argv: as given.
        studies: whether it takes study files.
    """
    parser = parser_of(doc)
    parser.add_argument(
        "--out", type=Path, default=Path("runs"), metavar="FOLDER", help="for run folders; runs"
    )
    if studies:
        parser.add_argument(
            "--study",
            type=Path,
            action="append",
            metavar="FILE",
            help="instead of the two bundled tasks; may be repeated",
        )
    options = parser.parse_args(argv)
    # The library of products reads it at its first one.
    fix_order_of_sums()
    import torch

    torch.set_num_threads(options.threads)
    return options


def publish(options: argparse.Namespace, found: Callable[[], tuple[Sequence[Page], Any]]) -> None:
    """Carry out a benchmark, print its pages, and write where asked to.

    Exits with status 1 and the reason where a request or the work fails.

    Args:
        options: what `options_of` returned.
        found: returns the pages, and the figures for ``--json``.
    """
    try:
        pages, figures = found()
    except LoratlasError as error:
        sys.exit(str(error))
    for name, text in pages:
        print(text)
        if options.write:
            (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    if options.json is not None:
        options.json.write_text(
            json.dumps(figures, indent=2, allow_nan=False) + "\n", encoding="utf-8"
        )


def _from(root: Path, source: Any) -> Any:
    """Return a source with files beside a study named by where they are."""
    if isinstance(source, Mapping):
        return {split: _from(root, each) for split, each in source.items()}
    return str(root / source) if (root / source).exists() else source
