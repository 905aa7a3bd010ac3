"""What the process of a tracker does: it takes a trial per line and answers each with a line.

Everything that a tracker's package may do wrong, it does here: it may hang, print, start
servers, end the process, or wait for a person to type a key.
"""

import faulthandler
import json
import os
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import IO

from loratlas.printable import printable
from loratlas.redaction import HIDDEN, redacted
from loratlas.study.tracking.marks import add_mark
from loratlas.study.tracking.tracked import TrackedTrial

_LONGEST = 300
_WANDB_KEY = re.compile(r"\b(?:local-)?[0-9a-f]{40}\b")
"""Of the older kind; elsewhere such a word is a revision."""


def main(name: str, folder: str, limit_s: str) -> None:
    """Send trials until there are no more.

    Args:
        name: the tracker.
        folder: its folder inside the run folder.
        limit_s: seconds after which a trial that is still being sent ends this process.
    """
    os.nice(10)  # the study comes first
    with _own_pipe(0, "rb") as trials, _own_pipe(1, "wb") as answers:
        for line in trials:
            # Whoever started this process ends it sooner, unless it was itself ended.
            faulthandler.dump_traceback_later(float(limit_s), exit=True)
            error = _sent(name, Path(folder), TrackedTrial(**json.loads(line)))
            faulthandler.cancel_dump_traceback_later()
            answers.write(json.dumps({"error": error}).encode() + b"\n")
            answers.flush()


def _own_pipe(number: int, mode: str) -> IO[bytes]:
    """Return standard input or output as a file that no tracker can read, write, or inherit."""
    own = os.fdopen(os.dup(number), mode)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, number)
    os.close(nothing)
    return own


def _sent(name: str, folder: Path, trial: TrackedTrial) -> str | None:
    """Send a trial and mark it as sent; return what went wrong."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        import_module(f"loratlas.study.tracking.to_{name}").send(trial, folder)
        add_mark(folder, trial.mark)
    except (Exception, SystemExit) as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        return printable(_WANDB_KEY.sub(HIDDEN, redacted(said)))[:_LONGEST].rstrip()
    return None


if __name__ == "__main__":
    main(*sys.argv[1:])
