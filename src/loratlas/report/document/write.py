"""Write the report of a run into a folder, whole or not at all."""

from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from loratlas.errors import RequestError
from loratlas.report.document.contents import contents
from loratlas.report.document.facts import Facts, gather
from loratlas.report.document.latex import latex
from loratlas.report.document.markdown import markdown
from loratlas.report.document.place import placed, require_report
from loratlas.report.document.sections.answer import headline, standing_text
from loratlas.report.document.words import counted
from loratlas.study.store import Store

_NEEDED = {"vl_convert": "vl-convert-python", "jinja2": "jinja2", "pyarrow": "pyarrow"}


def write_report(run: Path, store: Store, out: Path | None = None) -> dict[str, Any]:
    """Write the report of a run, in place of an earlier one.

    Args:
        run: the run folder.
        store: its store.
        out: folder of the report; ``report`` in the run folder when None.

    Returns:
        keys as the ``report`` command documents them.

    Raises:
        RequestError: a package is missing.
        RunFolderError: the folder holds something that is no report, or cannot be written.
        StoreError: the store cannot be read, or the disk is full.
    """
    _require_packages()
    folder = run / "report" if out is None else out
    require_report(folder)
    facts = gather(run, store)
    with placed(folder) as partial:
        _write(facts, partial)
        found = sorted(str(p.relative_to(partial)) for p in partial.rglob("*") if p.is_file())
    return {
        "study": facts.name,
        "headline": headline(facts),
        "complete": facts.standing["complete"],
        "folder": str(folder),
        "files": found,
    }


def _write(facts: Facts, folder: Path) -> None:
    # Imported here: these need packages of the extra `report`.
    from loratlas.report.document.exports import (
        result_rows,
        trial_rows,
        write_csv,
        write_parquet,
    )
    from loratlas.report.document.page import page
    from loratlas.report.document.pictures import write_pictures

    sections, answer = contents(facts), headline(facts)
    (folder / "figures").mkdir()
    write_pictures(sections, folder / "figures")
    texts = {
        "index.html": page(_head(facts, answer), sections),
        "report.md": markdown(facts.name, answer, sections),
        "tables.tex": latex(sections),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", errors="backslashreplace")
    for stem, rows in (("results", result_rows(facts)), ("trials", trial_rows(facts))):
        write_csv(rows, folder / f"{stem}.csv")
        write_parquet(rows, folder / f"{stem}.parquet")


def _head(facts: Facts, answer: str) -> Mapping[str, Any]:
    rows = facts.setting["rows"] or {}
    chips = [
        str((facts.study.get("model") or {}).get("name") or ""),
        standing_text(facts.standing),
        counted(len(facts.study.get("seeds") or []), "seed"),
        counted(rows["test"], "test row") if rows else "",
    ]
    return {
        "title": facts.name,
        "headline": answer,
        "chips": [chip for chip in chips if chip],
        "version": version("loratlas"),
    }


def _require_packages() -> None:
    missing = [package for name, package in _NEEDED.items() if find_spec(name) is None]
    if missing:
        raise RequestError(
            f"a report needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} "
            "not installed; pip install 'loratlas[report]'"
        )
