"""Which tasks does the installed lm_eval know, and in which file does each stand?

lm_eval's own index reads some 14,000 YAML files as YAML, which takes ten seconds. The name of
a task stands in its file on a line of its own, so reading the lines is enough.
"""

import re
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from loratlas.errors import StudyError, did_you_mean
from loratlas.measure.measures import HARNESS

_NAMED = re.compile(
    r"""^["']?(task|group)["']?[ \t]*:[ \t]*"""
    r"""(?:"([^"\n]+)"|'([^'\n]+)'|([^\s\[{#"'][^#\n]*?))[ \t]*(?:\#.*)?$""",
    re.MULTILINE,
)


def find_task(name: str) -> Path:
    """Return the file of a task of the installed lm_eval.

    Args:
        name: as lm_eval knows it: ``gsm8k``.

    Raises:
        StudyError: lm_eval is not installed, or knows no such task; names the nearest.
    """
    tasks, groups = _index(_folder(name))
    if name in tasks:
        return tasks[name]
    if name in groups:
        raise StudyError(
            f"measures: {HARNESS}{name} is a group of tasks; name the tasks one by one"
        )
    near = did_you_mean(name, tasks)
    raise StudyError(f"measures: {HARNESS}{name}: lm_eval knows no such task{near}")


def _folder(name: str) -> Path:
    found = find_spec("lm_eval")
    if found is None or found.origin is None:
        raise StudyError(
            f"measures: {HARNESS}{name} needs the package lm_eval, which is not installed; "
            "install it with: pip install 'loratlas[eval]'"
        )
    return Path(found.origin).parent / "tasks"


@cache
def _index(folder: Path) -> tuple[Mapping[str, Path], Mapping[str, Path]]:
    """Return the files of tasks and of groups by name; of two with one name the first counts."""
    found: dict[str, dict[str, Path]] = {"task": {}, "group": {}}
    for path in sorted(folder.rglob("*.yaml"), key=Path.as_posix):
        text = path.read_text(encoding="utf-8", errors="replace")
        for kind, *quoted in _NAMED.findall(text):
            found[kind].setdefault("".join(quoted).strip(), path)
    return found["task"], found["group"]
